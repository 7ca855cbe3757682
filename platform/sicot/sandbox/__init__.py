"""A cluster on one machine, for tests and for learning: Ray nodes, MLflow on PostgreSQL, S3, Prometheus."""
