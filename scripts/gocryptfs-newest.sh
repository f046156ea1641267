#!/bin/bash
# Brings the newest gocryptfs that Debian has (unstable) and the libraries it needs into DIR, beside the
# system, whose own packages stay as they are. Prints the program's path: what `compare --gocryptfs` takes.
#
#   scripts/gocryptfs-newest.sh DIR
set -euo pipefail
[ $# = 1 ] || { sed -n '2,5s/^# \{0,1\}//p' "$0" >&2; exit 2; }
mkdir -p "$1" && dir=$(cd "$1" && pwd)
program=$dir/gocryptfs
if [ -x "$program" ]; then echo "$program"; exit 0; fi

sources=/etc/apt/sources.list.d/debian.sources
[ -r $sources ] || { echo "$sources: not a Debian with deb822 sources; install gocryptfs yourself" >&2; exit 1; }
mkdir -p "$dir"/{parts,lists/partial,cache/archives/partial,debs,root}
# The system's first source, another suite.
awk 'BEGIN { RS = ""; ORS = "\n\n" } NR == 1' $sources | sed 's/^Suites:.*/Suites: sid/' >"$dir/parts/sid.sources"
apt() {
    apt-get -qq -o Dir::Etc::sourcelist=/dev/null -o Dir::Etc::sourceparts="$dir/parts" \
        -o Dir::State::lists="$dir/lists" -o Dir::Cache="$dir/cache" "$@" >&2
}
apt update
(cd "$dir/debs" && apt download gocryptfs libssl3t64 libc6 libzstd1 zlib1g)
for deb in "$dir"/debs/*.deb; do dpkg -x "$deb" "$dir/root"; done

loader=$(find "$dir/root" -name 'ld-linux-*.so.*' | head -1)
libraries=$(dirname "$(find "$dir/root" -name 'libc.so.6' | head -1)")
printf '#!/bin/sh\nexec "%s" --library-path "%s" "%s" "$@"\n' \
    "$loader" "$libraries" "$dir/root/usr/bin/gocryptfs" >"$program.new"
chmod +x "$program.new"
"$program.new" -version >&2
mv "$program.new" "$program"
echo "$program"
