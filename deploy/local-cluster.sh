#!/usr/bin/env bash
# Three members on this machine, found by a discovery service that is a member too.
#
#   deploy/local-cluster.sh [--dir DIRECTORY]
#
# The discovery service listens on 4000 (clients) and 7000 (members), the cluster on 4001-4003 and 7001-7003. Data and logs go to
# DIRECTORY (default: ./local-cluster); started again there, the same cluster comes back. Ctrl-C stops everything.
# QUORATE names the server (default: target/release/quorate, else quorate in the PATH).
set -euo pipefail

repository=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
dir=local-cluster
usage() {
    sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p}' "${BASH_SOURCE[0]}"
}
while [ $# -gt 0 ]; do
    case $1 in
        --dir)
            [ $# -ge 2 ] || { echo "local-cluster: --dir needs a directory" >&2; exit 2; }
            dir=$2
            shift 2
            ;;
        --dir=*)
            dir=${1#--dir=}
            shift
            ;;
        -h | --help)
            usage
            exit 0
            ;;
        *)
            echo "local-cluster: unknown argument $1 (see --help)" >&2
            exit 2
            ;;
    esac
done

quorate=${QUORATE:-}
if [ -z "$quorate" ]; then
    quorate=${CARGO_TARGET_DIR:-$repository/target}/release/quorate
    [ -x "$quorate" ] || quorate=$(command -v quorate || true)
fi
if [ -z "$quorate" ] || [ ! -x "$quorate" ]; then
    echo "local-cluster: no server found: build it (cargo build --release) or set QUORATE to its path" >&2
    exit 1
fi
command -v curl > /dev/null || { echo "local-cluster: needs curl" >&2; exit 1; }

mkdir -p "$dir"
# Settings of whoever runs this are not settings of the members.
for variable in $(compgen -e ETCD_ || true); do unset "$variable"; done

pids=()
# shellcheck disable=SC2317 # the trap calls it
stop() {
    trap - EXIT INT TERM HUP
    if [ ${#pids[@]} -gt 0 ]; then
        kill "${pids[@]}" 2> /dev/null || true
        wait "${pids[@]}" 2> /dev/null || true
    fi
}
trap stop EXIT
trap 'echo; echo "stopping"; exit 130' INT
trap 'exit 143' TERM HUP

# start NAME CLIENT_PORT PEER_PORT [ARGUMENT...]
start() {
    local name=$1 client=$2 peer=$3
    shift 3
    "$quorate" -name "$name" -data-dir "$dir/$name" -addr "127.0.0.1:$client" -peer-addr "127.0.0.1:$peer" "$@" \
        >> "$dir/$name.log" 2>&1 &
    pids+=($!)
}

fail() {
    echo "local-cluster: $1" >&2
    tail -n 20 "$dir"/*.log >&2
    exit 1
}

# wait_for PORT PID: until the member at that port says that it is healthy.
wait_for() {
    local port=$1 pid=$2
    for _ in $(seq 1 300); do
        kill -0 "$pid" 2> /dev/null || fail "the member at port $port ended"
        if curl --silent --fail --max-time 2 "http://127.0.0.1:$port/health" 2> /dev/null | grep -q true; then
            return
        fi
        sleep 0.1
    done
    fail "the member at port $port is not healthy after 30 s"
}

start discovery 4000 7000
wait_for 4000 "${pids[0]}"

# One token for the life of the directory: members that are started again find themselves in it.
if [ ! -s "$dir/token" ]; then
    curl --silent --show-error --fail 'http://127.0.0.1:4000/new?size=3' | grep ^http > "$dir/token.new" \
        || fail "the discovery service gave no token"
    mv "$dir/token.new" "$dir/token"
fi
token=$(cat "$dir/token")

for number in 1 2 3; do
    start "m$number" "400$number" "700$number" -discovery "$token"
done
for number in 1 2 3; do
    wait_for "400$number" "${pids[$number]}"
done

cat << END
Three members are up; discovery URL $token

  curl -L http://127.0.0.1:4001/v2/keys/message -XPUT -d value='Hello world'
  curl -L http://127.0.0.1:4002/v2/keys/message
  curl -L 'http://127.0.0.1:4003/v2/keys/message?wait=true'
  etcdctl --peers 127.0.0.1:4001,127.0.0.1:4002,127.0.0.1:4003 set /announce/services/apache80 192.0.2.1:80 --ttl 60

Data and logs: $dir. Ctrl-C stops all of it.
END
wait -n "${pids[@]}" || true
fail "a member ended"
