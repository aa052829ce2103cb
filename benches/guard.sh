#!/usr/bin/env bash
# Counts the instructions of fixed pieces of work and fails when one takes over a tenth more than is recorded in
# benches/guard.counts. After a change that is worth its price, or one that saves: benches/guard.sh --record
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
counts=benches/guard.counts
record=${1:-}
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

guard=$(cargo bench --locked --bench guard --no-run --message-format=json 2> "$scratch/build" \
    | sed -n 's/.*"executable":"\([^"]*\/guard-[^"]*\)".*/\1/p' | tail -n 1) || { cat "$scratch/build" >&2; exit 1; }
[ -x "$guard" ] || { cat "$scratch/build" >&2; echo "guard.sh: cargo built no guard" >&2; exit 1; }

failed=0
: > "$scratch/new"
for part in $("$guard" list); do
    valgrind --tool=callgrind --callgrind-out-file=/dev/null --collect-atstart=no --toggle-collect='guard::measured*' \
        "$guard" "$part" > /dev/null 2> "$scratch/out" || { cat "$scratch/out" >&2; exit 1; }
    now=$(sed -n 's/.*Collected : \([0-9]*\).*/\1/p' "$scratch/out")
    [ "${now:-0}" -gt 0 ] || { cat "$scratch/out" >&2; echo "guard.sh: nothing was counted for $part" >&2; exit 1; }
    echo "$part $now" >> "$scratch/new"
    before=$(sed -n "s/^$part //p" $counts 2> /dev/null || true)
    if [ -z "$before" ]; then
        verdict="not recorded"
        [ -n "$record" ] || failed=1
    else
        verdict="$(((now - before) * 1000 / before)) per mille"
        if [ $((now * 10)) -gt $((before * 11)) ]; then
            verdict+=": MORE THAN A TENTH"
            [ -n "$record" ] || failed=1
        fi
    fi
    printf '%-14s %12d  recorded %12s  %s\n' "$part" "$now" "${before:-none}" "$verdict"
done
if [ -n "$record" ]; then cp "$scratch/new" $counts; fi
exit $failed
