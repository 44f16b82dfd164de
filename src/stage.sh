#!/bin/sh
# What dvc.yaml runs: a stage, by the Python that has this package, so that `.venv/bin/dvc repro`
# works without an activated environment as well.
for python in python .venv/bin/python; do
  if "$python" -c 'import shoetagger' 2>/dev/null; then
    exec "$python" -m shoetagger.stages "$@"
  fi
done
echo "shoetagger is not installed here: run \`make setup\`, then \`. .venv/bin/activate\`" >&2
exit 1
