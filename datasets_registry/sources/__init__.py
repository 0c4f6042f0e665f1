"""Where bytes come from: one adapter for each way of getting them, one download engine, one ledger."""
