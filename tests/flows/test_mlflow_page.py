"""The pages of MLflow as a person sees them: a real server, a real browser, a real evaluation."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import mlflow
import pytest
from mlflow_server import MlflowServer
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import WebDriverWait
from small_model import checkpoint

from datasets_registry.miniatures import write_miniature
from models.settings import ModelSettings
from tasks.evaluate import evaluate_cases
from tasks.evaluation_pictures import draw_evaluation
from tasks.evaluation_run import Evaluation, Subject, log_evaluation
from tasks.ingest import ingest_batch, list_source
from tasks.model_card import CARD, refresh_model_card
from tasks.registry import TRAINING_CASES, ModelVersion, checkpoint_digest, register_checkpoint
from tasks.settings import Settings
from tasks.splits import SplitChoice
from tasks.tracking import experiment_name, mlflow_client, tracked_run
from tasks.training_data import log_data_licences
from tasks.workspace import open_workspace

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
MODEL = ModelSettings(classes=("liver",), patch=(32, 32, 32), spacing_mm=(12.0, 12.0, 12.0))
WAIT_S = 60
SHOTS = "CTFACTORY_SCREENSHOTS"
"""Names a folder in which the test leaves pictures of the pages."""


@pytest.fixture(scope="module")
def browser() -> Iterator[webdriver.Chrome]:
    program = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    driver = shutil.which("chromedriver")
    if program is None or driver is None:
        pytest.skip("no Chromium with chromedriver here; on Debian: apt-get install chromium chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = program
    # As root Chromium has no sandbox; the pages are our own, from loopback.
    for word in (
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--window-size=1500,1400",
    ):
        options.add_argument(word)
    opened = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    yield opened
    opened.quit()


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    return Settings(
        workspace=tmp_path_factory.mktemp("page"), spacing_mm=(12, 12, 12), nsd_tolerance_mm=12, device="cpu", threads=1
    )


@pytest.fixture(scope="module")
def evaluated(settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> tuple[ModelVersion, Evaluation]:
    """An untrained network, registered and evaluated on two miniatures of CHAOS, in the SQLite file of the settings."""
    folder = tmp_path_factory.mktemp("raw")
    write_miniature("chaos_ct", folder / "raw", cases=2, seed=7, truth_folder=folder / "truth")
    ingest_batch(list_source("chaos_ct", folder / "raw", settings).requests, settings)
    file = checkpoint(folder / "model.safetensors", MODEL)
    with tracked_run(settings, "train", kind="train", tags={}):
        mlflow.log_text("word/0001", TRAINING_CASES)
        log_data_licences(["word/0001"], settings)
        version = register_checkpoint(file, settings, tags={})
    workspace = open_workspace(settings)
    cases, weights = workspace.tables.cases(), checkpoint_digest(file)
    results = evaluate_cases(cases, file, weights, settings)
    overlays = draw_evaluation(cases, results.scores, file, weights, settings, folder / "pictures")
    choice = SplitChoice(only=tuple(cases["case_id"]))
    subject = Subject(
        version, file, weights, cases, choice, None, (), ("word/0001",), dict(workspace.tables.versions())
    )
    evaluation = log_evaluation(results, subject, settings, overlays)
    refresh_model_card(version, settings)
    return version, evaluation


@pytest.fixture(scope="module")
def server(
    browser: webdriver.Chrome,  # without one nothing is worth starting
    settings: Settings,
    evaluated: tuple[ModelVersion, Evaluation],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[MlflowServer]:
    made = MlflowServer(tmp_path_factory.mktemp("server"), settings.mlflow_uri).start()
    yield made
    made.kill()


@pytest.fixture(scope="module")
def run_page(server: MlflowServer, settings: Settings, evaluated: tuple[ModelVersion, Evaluation]) -> str:
    experiment = mlflow_client(settings).get_experiment_by_name(experiment_name(settings, "evaluate"))
    return f"{server.url}/#/experiments/{experiment.experiment_id}/runs/{evaluated[1].run_id}"


def see(browser: webdriver.Chrome, selector: str, text: str = "") -> WebElement:
    """Return the first visible element of that CSS selector that holds `text`, as soon as the page shows it."""

    def look(shown: webdriver.Chrome) -> WebElement | None:
        found = [one for one in shown.find_elements(By.CSS_SELECTOR, selector) if one.is_displayed()]
        return next((one for one in found if text in one.text), None)

    return WebDriverWait(browser, WAIT_S, ignored_exceptions=[Exception]).until(look, f"{selector} with {text!r}")


def shot(browser: webdriver.Chrome, name: str) -> None:
    if folder := os.environ.get(SHOTS):
        Path(folder).mkdir(parents=True, exist_ok=True)
        browser.save_screenshot(str(Path(folder) / f"{name}.png"))


def test_the_page_of_a_run_shows_its_figures_and_the_model_card(
    browser: webdriver.Chrome, run_page: str, evaluated: tuple[ModelVersion, Evaluation]
) -> None:
    browser.get(run_page)
    page = see(browser, "main, body", "Intended use")
    see(browser, "main, body", "dsc/liver")
    shot(browser, "run")
    assert "Organs and lesions in abdominal CT" in page.text


def test_the_table_of_classes_is_rendered(browser: webdriver.Chrome, run_page: str) -> None:
    browser.get(f"{run_page}/artifacts/classes.html")
    frame = see(browser, "iframe")
    browser.switch_to.frame(frame)
    try:
        rows = see(browser, "table", "liver").find_elements(By.TAG_NAME, "tr")
        assert len(rows) == 2  # its head and one class of one data set
        assert "chaos_ct" in rows[1].text
    finally:
        browser.switch_to.default_content()
    shot(browser, "classes")


@pytest.mark.parametrize("name", ["boxes.png", "class_scores.png", "chaos_ct.png"])
def test_a_plot_is_shown_whole(browser: webdriver.Chrome, run_page: str, name: str) -> None:
    browser.get("about:blank")
    browser.get(f"{run_page}/artifacts/{name}")
    picture = see(browser, "main img, [class*='image'] img, img[src^='blob:'], img[src*='artifact']")

    def width(shown: webdriver.Chrome) -> int:
        return int(shown.execute_script("return arguments[0].complete ? arguments[0].naturalWidth : 0", picture))

    assert WebDriverWait(browser, WAIT_S).until(width) > 300
    shot(browser, name.removesuffix(".png"))


def test_the_model_card_can_be_read(
    browser: webdriver.Chrome, run_page: str, server: MlflowServer, evaluated: tuple[ModelVersion, Evaluation]
) -> None:
    browser.get("about:blank")
    browser.get(f"{run_page}/artifacts/{CARD}")
    see(browser, "main, body", "Strictest of data and weights")
    shot(browser, "card")
    version = evaluated[0]
    browser.get(f"{server.url}/#/models/{version.name}/versions/{version.version}")
    page = see(browser, "main, body", "Intended use")
    assert "WORD" in page.text
    shot(browser, "version")
