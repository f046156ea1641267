#!/usr/bin/env bash
# A vault of three custodians, a machine that writes, a reader.
. "$(dirname "$0")/common.sh"

vault
fingerprint=$(runvault fingerprint store | tail -n 1)    # on paper, apart from the store
runvault gateway enroll store --fingerprint "$fingerprint" --name novaseq-1 --out novaseq-1.req --state state
agree alice bob enroll-gateway novaseq-1.req --reason 'the instrument in room 4'
key pipeline
agree bob carol add-reader pipeline=pipeline.key.pub --standing --reason 'primary analysis'
runvault custody list store --state state
