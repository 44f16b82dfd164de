#!/bin/sh
# Makes the databases and their owners on a PostgreSQL that is new to them, as its superuser: with site.env
# loaded, and PGHOST, PGPORT, PGUSER and PGPASSWORD as psql takes them.
set -eu
psql --quiet --no-psqlrc --set ON_ERROR_STOP=1 \
  --set metadata="$METADATA_PASSWORD" --set results="$RESULTS_PASSWORD" \
  --set mlflow="$MLFLOW_DATABASE_PASSWORD" --set store="$STORE_PASSWORD" postgres <<'SQL'
SET password_encryption = 'scram-sha-256';
CREATE ROLE airflow LOGIN PASSWORD :'metadata';
CREATE ROLE celery LOGIN PASSWORD :'results';
CREATE ROLE mlflow LOGIN PASSWORD :'mlflow';
CREATE ROLE shoetagger LOGIN PASSWORD :'store';
CREATE DATABASE airflow OWNER airflow;
CREATE DATABASE celery OWNER celery;
CREATE DATABASE mlflow OWNER mlflow;
CREATE DATABASE mlflow_users OWNER mlflow;
CREATE DATABASE shoetagger OWNER shoetagger;
-- By default everybody who may log in may connect to every database.
REVOKE CONNECT ON DATABASE airflow, celery, mlflow, mlflow_users, shoetagger FROM PUBLIC;
SQL
