#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Run all tests: dev/run_tests.sh PYTHON PROCESSES [OPTION OF PYTEST ...]
#
# Each folder of tests has a process of its own, so that what native libraries leave behind in one
# does not reach the next; PROCESSES of them run at a time.  The tests of a Ray cluster, which
# takes all cores, run last and alone.  Tests that fail run once more, as does a folder whose
# process has ended by a signal; both outputs are printed.
set -uo pipefail
cd "$(dirname "$0")/.."
python=$1 processes=$2
shift 2

run_part() {
    local python=$1 part=$2 code
    shift 2
    local cache="${PYTEST_DEBUG_TEMPROOT:-/tmp}/cache/${part//\//_}"
    # shellcheck disable=SC2086  # A part may be several words.
    set -- -p no:xdist -o cache_dir="$cache" "$@" $part
    "$python" -m pytest "$@"
    code=$?
    if [ "$code" = 1 ]; then
        echo "--- $part: once more what failed"
        "$python" -m pytest --last-failed --last-failed-no-failures none "$@"
        code=$?
    elif [ "$code" -gt 5 ]; then
        echo "--- $part: ended with exit code $code; once more"
        "$python" -m pytest "$@"
        code=$?
    fi
    # 5: nothing selected, as with -m in a folder without such tests.
    [ "$code" = 5 ] || return "$code"
}

# The longest first.
cluster='test/jobs/test_engine.py test/cli/test_cluster.py'
first=(training cli detector node dev evaluation)
parts=("${first[@]/#/test/}")
for folder in test/*/; do
    name=$(basename "$folder")
    case " ${first[*]} helpers __pycache__ " in *" $name "*) ;; *) parts+=("test/$name") ;; esac
done
parts+=("$(echo test/test_*.py)")

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
ignored=()
for file in $cluster; do ignored+=("--ignore=$file"); done
failed=0
for part in "${parts[@]}"; do
    while [ "$(jobs -rp | wc -l)" -ge "$processes" ]; do wait -n; done
    number=$((${number:-0} + 1))
    (
        run_part "$python" "$part" "$@" "${ignored[@]}" >"$folder/log$number" 2>&1
        echo $? >"$folder/code$number"
        # One write, so that parts do not mix.
        cat "$folder/log$number"
    ) &
done
wait
run_part "$python" "$cluster" "$@"
echo $? >"$folder/code0"
for number in $(seq 0 "$number"); do
    code=$(cat "$folder/code$number" 2>/dev/null || echo 1)
    [ "$code" = 0 ] || { failed=1; echo "failed: $([ "$number" = 0 ] && echo "$cluster" ||
        echo "${parts[$((number - 1))]}")"; }
done
exit $failed
