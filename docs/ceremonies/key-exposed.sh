#!/usr/bin/env bash
# A guest's laptop is gone, with the key of a run that was granted to it: the run gets another key.
. "$(dirname "$0")/common.sh"

vault
fingerprint=$(runvault fingerprint store | tail -n 1)
runvault gateway enroll store --fingerprint "$fingerprint" --name novaseq-1 --out novaseq-1.req --state state
agree alice bob enroll-gateway novaseq-1.req
key lab
key guest
agree alice bob add-reader lab=lab.key.pub --standing
agree alice bob add-reader guest=guest.key.pub
mkdir run-1
echo ACGT > run-1/reads
runvault cp -r run-1 store:/ --identity lab.key --state state
runvault seal store run-1 --state state
run=$(runvault runs store --json --state state | sed -n 's/.*"run":"\([0-9a-f]*\)".*/\1/p')
agree alice bob grant "$run" guest
runvault cat store run-1/reads --identity guest.key --state state

agree alice carol revoke "$run" guest --reason 'laptop stolen'
agree alice carol rekey "$run" --reason 'laptop stolen'
runvault rekey store --identity req.worker --state state --grace 1s    # on any machine; a cluster: --shard I/N
[ ! -e req.worker ]                                      # erased with the last run
runvault verify store run-1 --identity lab.key --state state
runvault scrub store --state state                       # no key: the gateway's own signature still proves the content
if runvault cat store run-1/reads --identity guest.key --state state; then exit 1; fi
confirm alice bob carol
runvault custody list store --state state
