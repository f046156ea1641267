# What all ceremonies share: a folder of their own, and an act that two custodians agree on.
set -euo pipefail
cd "${1:?an empty folder}"
export HOME=$PWD XDG_STATE_HOME=$PWD/state

key() {
    runvault keygen --out "$1.key" --no-lock     # in earnest: a passphrase, on this person's own machine
}

confirm() {
    for who in "$@"; do runvault custody confirm store --state state --identity "$who.key"; done
}

# agree ALICE BOB WHAT...: proposed here, approved by both, executed here.
agree() {
    local one=$1 two=$2
    shift 2
    rm -f req "$one.ok" "$two.ok"
    runvault custody propose store "$@" --out req --state state
    for who in "$one" "$two"; do                 # each on his own machine; in earnest without --yes
        runvault custody approve req --identity "$who.key" --out "$who.ok" --yes
    done
    runvault custody execute store req --approval "$one.ok" --approval "$two.ok" --state state
}

vault() {
    for who in alice bob carol; do key "$who"; done
    runvault init store --custodian alice=alice.key.pub --custodian bob=bob.key.pub \
        --custodian carol=carol.key.pub --quorum 2
    confirm alice bob carol
}
