"""The real parts (Kafka, PostgreSQL, a ledger) as native processes: installed from package registries, started and stopped without root."""
