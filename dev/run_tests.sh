#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Run all tests: dev/run_tests.sh PYTHON PROCESSES [OPTION OF PYTEST ...]
# With PARTS='FILE_OR_FOLDER ...,FILE_OR_FOLDER ...' in the environment, run only these parts.
#
# Each part of the tests has its own process, so that the state of native libraries does not affect
# the next part. PROCESSES of them run at a time. `make lint` runs the linters. A test that fails
# runs once more, and so does a part whose process has ended by a signal. Both outputs are printed,
# and the last lines name such parts. RETRY=0 runs nothing twice.
set -uo pipefail
cd "$(dirname "$0")/.."
python=$1 processes=$2
shift 2

# A crash in a native library prints its place, also in a program that a test starts.
export PYTHONFAULTHANDLER=1

run_part() {
    local python=$1 number=$2 part=$3 code
    shift 3
    # With --cov: parts that run at the same time must not write into one file.
    export COVERAGE_FILE="$PWD/.coverage.part$number"
    # shellcheck disable=SC2086  # A part may be several words.
    set -- -o cache_dir="${PYTEST_DEBUG_TEMPROOT:-/tmp}/cache/part$number" "$@" $part
    "$python" -m pytest "$@"
    code=$?
    if [ "${RETRY:-1}" = 0 ]; then
        :
    elif [ "$code" = 1 ]; then
        echo "--- $part: failed tests once more"
        "$python" -m pytest --last-failed --last-failed-no-failures none "$@"
        code=$?
        # Nothing selected: the failed tests are unknown.
        [ "$code" != 5 ] || code=1
    elif [ "$code" -gt 5 ]; then
        echo "--- $part: ended with exit code $code; once more"
        "$python" -m pytest "$@"
        code=$?
    fi
    # 5: nothing selected, as with -m in a folder without such tests.
    [ "$code" = 5 ] || return "$code"
}

# Files that are parts, or in parts, of their own; no folder's part runs them.
cluster='test/jobs/test_engine.py test/cli/test_cluster.py'
graphs='test/cli/test_demo.py test/cli/test_benchmark.py'
programs=$(echo test/cli/test_{train,replay,evaluate_accuracy,label}.py)
lint='test/test_lint.py'
root=" $(echo test/test_*.py) "
root=$(echo ${root/ $lint / })
# The longest first, and beside them the nodes, which mostly wait.  Folders of less than a minute
# share a process: its start takes seconds.
parts=(test/training "$programs" test/node "$graphs" "$cluster" test/detector test/cli)
last=('test/evaluation test/experiments' "$root" 'test/dev test/launch test/report')
rest=
for folder in test/*/; do
    name=test/$(basename "$folder")
    case " ${parts[*]} ${last[*]} test/helpers test/__pycache__ " in
        *" $name "*) ;;
        *) rest+=" $name" ;;
    esac
done
parts+=("${rest# }" "${last[@]}")
if [ -n "${PARTS:-}" ]; then
    IFS=, read -ra parts <<<"$PARTS"
fi

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
ignored=()
for file in $cluster $graphs $programs $lint; do ignored+=("--ignore=$file"); done
failed=0
for part in "${parts[@]}"; do
    while [ "$(jobs -rp | wc -l)" -ge "$processes" ]; do wait -n; done
    number=$((${number:-0} + 1))
    (
        case $part in
            "$graphs" | "$programs" | "$cluster") ;;
            *) set -- "$@" "${ignored[@]}" ;;
        esac
        run_part "$python" "$number" "$part" "$@" >"$folder/log$number" 2>&1
        echo $? >"$folder/code$number"
        # One write, so that parts do not mix.
        cat "$folder/log$number"
    ) &
done
wait
for number in $(seq "$number"); do
    code=$(cat "$folder/code$number" 2>/dev/null || echo 1)
    part=${parts[$((number - 1))]}
    [ "$code" = 0 ] || { failed=1; echo "failed: $part"; }
    # A second run that passes must not hide the first.
    if grep -q '^--- .* once more' "$folder/log$number"; then echo "needed a second run: $part"; fi
done
exit $failed
