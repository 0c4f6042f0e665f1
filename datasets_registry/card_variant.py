"""Another set of label files for the same scans."""

from __future__ import annotations

from pydantic import model_validator

from datasets_registry.card_ids import CaseIds
from datasets_registry.card_parts import CaseFlag, CaseRule, LabelValue, Layout, Level, Part
from datasets_registry.card_rules import require_case_rules, require_coverage


class LabelVariant(Part):
    """Another label file for the same scans; `Card.with_variant` puts it in the place of the default.

    image_glob, tree: only where the variant's archive arranges the images in another way too. case_ids: only where it
    covers other cases than the card says.
    """

    label_glob: str
    image_glob: str | None = None
    tree: str | None = None
    labels: dict[int, LabelValue]
    annotated_classes: tuple[str, ...]
    annotated_by_case: tuple[CaseRule, ...] = ()
    case_ids: CaseIds | None = None
    unlabelled_case_ids: CaseIds = ()
    case_flags: tuple[CaseFlag, ...] = ()
    note: str | None = None
    confidence: Level

    @model_validator(mode="after")
    def _consistent(self) -> LabelVariant:
        require_coverage(self.labels, self.annotated_classes)
        require_case_rules(
            self.labels, self.annotated_classes, present_only=False, always=(), by_case=self.annotated_by_case
        )
        return self

    def layout_from(self, layout: Layout) -> Layout:
        """Return the card's layout with this variant's globs and tree."""
        changes = {"label_glob": self.label_glob, "image_glob": self.image_glob, "tree": self.tree}
        return layout.model_copy(update={name: value for name, value in changes.items() if value is not None})
