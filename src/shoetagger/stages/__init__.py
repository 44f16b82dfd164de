"""What dvc.yaml calls: one module a stage, wiring the core to files and to MLflow."""
