#!/usr/bin/env bash
# The server room burnt. What is left: runs/ on the backup, two custodians' key files in another building.
. "$(dirname "$0")/common.sh"

vault
key lab
agree alice bob add-reader lab=lab.key.pub --standing --reason 'the lab reads what is made from now on'
runvault gateway enroll store --fingerprint "$(runvault fingerprint store | tail -n 1)" \
    --name novaseq-1 --out novaseq-1.req --state state
agree alice carol enroll-gateway novaseq-1.req
mkdir run && echo '<RunInfo/>' > run/RunInfo.xml
runvault cp -r run store:/ --identity lab.key --state state
confirm alice bob                                        # the key files keep custody/ as it is now
key guest
agree alice bob add-reader guest=guest.key.pub           # after the last drill: no key file keeps it
head=$(runvault audit verify store --state state | tail -n 1)          # on paper, beside the fingerprint
cp -r state elsewhere                                    # what another machine of this store has seen

# A new machine: nothing of the old one, the store's runs/ alone, two key files.
mkdir -p new/store && cp -r store/runs new/store/ && cp alice.key bob.key new/ && rm -r store state
cd new
since=$(date +%s%N)
runvault custody recover store --identity alice.key --identity bob.key --state state --reason 'the server room burnt'
echo "made anew in $((($(date +%s%N) - since) / 1000000)) ms"
runvault audit show store --state state                  # the trail is whole; its last line says what was done, by whom
runvault fingerprint store                               # the words on paper are the same
if runvault audit verify store --state state --since "$head"; then exit 1; fi    # what came after the last drill is lost
if runvault custody list store --state ../elsewhere; then exit 1; fi    # a machine that has seen it refuses the store,
runvault custody list store --state ../elsewhere --accept-rollback 3 > list      # and is told once that people know
runvault cat store run/RunInfo.xml --identity ../lab.key --state state
confirm alice bob                                        # the drill, before a new vault key depends on it
agree alice bob rotate --reason 'the machine that recovered learned the vault key'
confirm alice bob
confirm ../carol                                         # Carol's key file was not needed, and goes on
runvault custody list store --state state
