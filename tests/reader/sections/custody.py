"""7. Custody: genesis, states, requests, the audit log."""

import json

from .conventions import demand, lb, sha256, u
from .suite import XWing, info, open_envelope, verify
from .texts import (
    b64, b64_key, boolean, clean_text, dumps, many, one_of, or_null, parse_line, parse_text, table, text, time,
    un64, utf8, word)
from .identities import HEX16, HEX32, INT, KEM, LABEL, SIGN, U16, U32, U8, id_of

# 7.1 Genesis

CUSTODIAN = table(id=HEX16, label=LABEL, sign=SIGN, kem=KEM)
GENESIS = table(suite=U16, quorum=U8, custodians=many(CUSTODIAN), kem=KEM,
                shares=many(table(to=HEX16, x=U8, sha256=HEX32)), created=time, salt=HEX16)


def distinct(values):
    values = list(values)
    return len(set(values)) == len(values)


def check_custodians(quorum, custodians):
    demand(1 <= quorum <= len(custodians) <= 255, "state", "quorum")
    demand(distinct(c["id"] for c in custodians), "state", "a custodian twice")
    for custodian in custodians:
        demand(id_of(un64(custodian["sign"]), un64(custodian["kem"])) == custodian["id"], "state", "a custodian's id")


def check_shares(shares, custodians):
    demand([s["to"] for s in shares] == [c["id"] for c in custodians], "state", "shares")
    demand(distinct(s["x"] for s in shares) and all(s["x"] for s in shares), "state", "shares")


def parse_genesis(data):
    genesis = parse_text("genesis", data, GENESIS)
    demand(genesis["suite"] == 1, "suite")
    check_custodians(genesis["quorum"], genesis["custodians"])
    check_shares(genesis["shares"], genesis["custodians"])
    return genesis, sha256(data)


def share_hash(epoch, x, y):
    return sha256(lb("runvault/1 share"), u(32, epoch), u(8, x), y)


# 7.2 States

UNTIL = table(seq=INT, hash=or_null(HEX32), seals=INT, seals_hash=or_null(HEX32))
GATEWAYS = many(table(id=HEX16, label=LABEL, sign=SIGN, until=or_null(UNTIL)))
READERS = many(table(id=HEX16, label=LABEL, kem=KEM, standing=boolean, expires=or_null(time)))
EPOCH = table(e=U32, since=INT, kem=KEM, status=word("current", "kept"), made=INT,
              shares=many(table(to=HEX16, x=U8, env=or_null(b64), sha256=HEX32)), previous=or_null(b64))
STATE = table(n=INT, vault=HEX32, quorum=U8, custodians=many(CUSTODIAN), epochs=many(EPOCH), gateways=GATEWAYS,
              readers=READERS)


def is_whole(until):
    return (until["seq"] == 0) == (until["hash"] is None) and (until["seals"] == 0) == (until["seals_hash"] is None)


def check_state(state):
    check_custodians(state["quorum"], state["custodians"])
    epochs = state["epochs"]
    demand(epochs, "state", "no epoch")
    for i, epoch in enumerate(epochs):
        current = i + 1 == len(epochs)
        demand(epoch["e"] == i + 1, "state", "numbers of epochs")
        demand(epoch["status"] == ("current" if current else "kept"), "state", "status of an epoch")
        demand(epoch["since"] <= epoch["made"] <= state["n"], "state", "age of an epoch")
        demand((epoch["previous"] is None) == (i == 0), "state", "previous")
        if current:
            check_shares(epoch["shares"], state["custodians"])
        demand(current or not epoch["shares"], "state", "shares of a kept epoch")
        demand(all(s["env"] is not None for s in epoch["shares"]) or state["n"] == 0, "state", "no envelope")
    for people in ("gateways", "readers"):
        demand(distinct(p["id"] for p in state[people]), "state", f"one of the {people} twice")
    for end in (g["until"] for g in state["gateways"] if g["until"] is not None):
        demand(is_whole(end), "state", "a gateway's end that names no run or seal")


def state_zero(genesis, vault):
    """State 0, which no file needs to tell."""
    shares = [{"to": s["to"], "x": s["x"], "env": None, "sha256": s["sha256"]} for s in genesis["shares"]]
    epoch = {"e": 1, "since": 0, "kem": genesis["kem"], "status": "current", "made": 0, "shares": shares,
             "previous": None}
    return {"n": 0, "vault": vault.hex(), "quorum": genesis["quorum"], "custodians": genesis["custodians"],
            "epochs": [epoch], "gateways": [], "readers": []}


def take_envelopes(zero, data):
    """State 0 with the envelopes of its file."""
    filled = parse_text("state", data, STATE)
    check_state(filled)
    bare = json.loads(dumps(filled))
    for share in bare["epochs"][0]["shares"]:
        share["env"] = None
    demand(bare == zero, "state", "state-0 is not the genesis's")
    return filled


# 7.3 Requests and approvals

OUTLINE = table(n=INT, quorum=U8, custodians=many(CUSTODIAN), epoch=U32, gateways=GATEWAYS, readers=READERS)
OPERATION = one_of(
    **{"enrol-gateway": table(gateway=HEX16), "revoke-gateway": table(gateway=HEX16),
       "admit-gateway": table(gateway=HEX16, run=or_null(HEX16)),
       "dismiss-gateway": table(gateway=HEX16, run=or_null(HEX16), until=UNTIL), "rotate": table(epoch=U32)}
)
REQUEST = table(vault=HEX32, head=table(n=INT, hash=HEX32), op=OPERATION, reason=clean_text(0, 1024),
                releases_share=boolean, executor=table(kem=KEM, sign=SIGN), created=time, expires=time,
                nonce=HEX16, state=or_null(OUTLINE))
APPROVAL = table(custodian=HEX16, env_sha256=or_null(HEX32), sig=b64_key(lambda sig: len(sig) == 64))


def outline(state):
    fields = {"n": state["n"], "quorum": state["quorum"], "custodians": state["custodians"],
              "epoch": state["epochs"][-1]["e"], "gateways": state["gateways"], "readers": state["readers"]}
    return fields


# 7.4 The audit log

RETIRED = table(vault=HEX32, run=HEX16, gateway=HEX16, seq=INT, run_note=HEX32, prev=or_null(HEX32), time=time)
REMOVED = table(vault=HEX32, run=HEX16, gateway=HEX16, seq=INT, run_note=HEX32, prev=or_null(HEX32),
                seal=or_null(table(gateway=HEX16, n=INT, hash=HEX32, prev=or_null(HEX32))), custodian=HEX16,
                reason=clean_text(0, 1024), time=time)
HEAD = table(gateway=HEX16, seq=INT, hash=or_null(HEX32), seals=INT, seals_hash=or_null(HEX32))
LINE = table(n=INT, prev=HEX32, time=time, request=REQUEST,
             result=table(state=or_null(HEX32), runs=many(RETIRED)), heads=many(HEAD),
             approvals=many(APPROVAL), executor_sig=b64_key(lambda sig: len(sig) == 64))


def verify_line(line, head, before, after):
    """Whether a line follows from the head {n, hash} and the state before it; `after` is the file of state n."""
    def chain(holds, about):
        demand(holds, "chain", f"line {line['n']}: {about}")

    request = line["request"]
    chain(line["n"] == head["n"] + 1, "number")
    chain(line["prev"] == head["hash"], "line before")
    chain(request["head"] == head, "the request is for another head")
    chain(request["vault"] == before["vault"], "vault")
    chain(request["created"] <= line["time"] <= request["expires"], "time")
    verify_approvals(line, before, chain)
    signed = dumps({name: value for name, value in line.items() if name != "executor_sig"}).encode()
    message = lb("runvault/1 executed") + sha256(signed)
    verify(un64(request["executor"]["sign"]), un64(line["executor_sig"]), message)
    result = line["result"]["state"]
    chain((result is None) == (request["state"] is None), "state missing")
    if result is None:
        chain(False, "an operation that leaves the state as it is")
    chain(after is not None, "state missing")
    chain(sha256(after).hex() == result, "hash of the state")
    state = parse_text("state", after, STATE)
    check_state(state)
    chain(state["n"] == line["n"] and state["vault"] == before["vault"], "number of the state")
    chain(outline(state) == request["state"], "state of the request")
    verify_epochs(before, state, chain)
    verify_operation(request["op"], before, state, chain)
    return state


def verify_approvals(line, before, chain):
    request, custodians = line["request"], {c["id"]: c for c in before["custodians"]}
    releases = "rotate" in request["op"]
    chain(request["releases_share"] == releases, "release of shares")
    request_hash = sha256(text("request", request))
    for approval in line["approvals"]:
        chain((approval["env_sha256"] is not None) == releases, "release of shares")
        chain(approval["custodian"] in custodians, "approved by someone else")
    chain(distinct(a["custodian"] for a in line["approvals"]), "approved twice by one custodian")
    for approval in line["approvals"]:
        released = bytes.fromhex(approval["env_sha256"]) if releases else bytes(32)
        message = lb("runvault/1 approval") + request_hash + released
        verify(un64(custodians[approval["custodian"]]["sign"]), un64(approval["sig"]), message)
    chain(len(line["approvals"]) >= before["quorum"], "quorum")


def verify_epochs(before, state, chain):
    old, new = before["epochs"], state["epochs"]
    chain(len(old) <= len(new) <= len(old) + 1, "kept epochs")
    for a, b in zip(old, new):
        chain(all(a[field] == b[field] for field in ("e", "since", "kem", "previous")), "kept epochs")
    if len(new) > len(old):
        epoch = new[-1]
        chain(epoch["since"] == epoch["made"] == state["n"] and epoch["previous"] is not None, "new epoch")
    elif new[-1]["made"] != state["n"]:
        pairs = list(zip(old[-1]["shares"], new[-1]["shares"]))
        same = all({**a, "env": b["env"]} == b and a["env"] in (None, b["env"]) for a, b in pairs)
        same = same and len(old[-1]["shares"]) == len(new[-1]["shares"])
        chain(same and old[-1]["made"] == new[-1]["made"], "shares")


def verify_operation(operation, before, state, chain):
    expected = {**outline(before), "n": state["n"]}
    if "rotate" in operation:
        chain(operation["rotate"]["epoch"] == expected["epoch"] + 1, "number of the epoch")
        chain(outline(state) == {**expected, "epoch": expected["epoch"] + 1}, "the operation changes something else")
        return
    if "revoke-gateway" in operation:
        verify_revocation(operation["revoke-gateway"]["gateway"], before, state, chain)
        return
    admission = operation.get("admit-gateway") or operation.get("dismiss-gateway")
    if admission:
        known = next((g for g in before["gateways"] if g["id"] == admission["gateway"]), None)
        chain(known is not None, "not enrolled")
        chain(known["until"] is None, "ended before")
        until = admission.get("until")
        chain(until is None or is_whole(until), "end of the admission")
        chain(state["epochs"][-1]["made"] == before["epochs"][-1]["made"], "admission")
        chain(outline(state) == expected, "the operation changes something else")
        return
    gateway, gateways = operation["enrol-gateway"]["gateway"], state["gateways"]
    chain(gateway not in [g["id"] for g in before["gateways"]], "enrolled before")
    chain(gateways and gateways[-1]["id"] == gateway and gateways[-1]["until"] is None, "enrolment")
    chain(state["epochs"][-1]["made"] == before["epochs"][-1]["made"], "enrolment")
    same = {**expected, "gateways": before["gateways"] + gateways[-1:]}
    chain(outline(state) == same, "the operation changes something else")


def verify_revocation(gateway, before, state, chain):
    ended = next((g for g in before["gateways"] if g["id"] == gateway), None)
    chain(ended is not None, "not enrolled")
    chain(ended["until"] is None, "ended before")
    until = next((g["until"] for g in state["gateways"] if g["id"] == gateway), None)
    chain(until is not None, "revocation")
    chain(state["epochs"][-1]["made"] == before["epochs"][-1]["made"], "revocation")
    gateways = [{**g, "until": until} if g["id"] == gateway else g for g in before["gateways"]]
    same = {**outline(before), "n": state["n"], "gateways": gateways}
    chain(outline(state) == same, "the operation changes something else")


def follow(zero, zero_file, log, state_file, line_file=lambda n: None):
    """The newest state and head of a chain, the state's hash, and who was admitted: {(gateway, run or None): until}.

    `state_file(n)` and `line_file(n)` give those files, or None."""
    admitted = {}
    state, head = zero, {"n": 0, "hash": zero["vault"]}
    state_hash = sha256(text("state", zero)).hex()
    if zero_file is not None:
        state = take_envelopes(zero, zero_file)
    demand(not log or log.endswith(b"\n"), "truncated", "audit.log")

    def take(data, after):
        nonlocal state, head, state_hash
        line = parse_line(utf8(data), LINE)
        state = verify_line(line, head, state, after or state_file(line["n"]))
        head, state_hash = {"n": line["n"], "hash": sha256(data).hex()}, line["result"]["state"]
        admission = line["request"]["op"].get("admit-gateway")
        if admission:
            admitted[admission["gateway"], admission["run"]] = None
        end = line["request"]["op"].get("dismiss-gateway")
        for gateway, run in list(admitted) if end else ():
            if gateway == end["gateway"] and end["run"] in (None, run) and admitted[gateway, run] is None:
                admitted[gateway, run] = end["until"]

    for data in log.split(b"\n")[:-1]:
        take(data, None)
    while (executed := line_file(head["n"] + 1)) is not None:
        data, newline, after = executed.partition(b"\n")
        demand(newline, "truncated", f"line-{head['n'] + 1}")
        take(data, after)
    return state, head, state_hash, admitted


def open_epochs(identity, state):
    """The key of every epoch, {e: XWing}, for the one custodian of a quorum of 1."""
    epochs, vault = state["epochs"], bytes.fromhex(state["vault"])
    demand(state["quorum"] == 1, "share", "this reader opens quorums of one custodian")
    share = next((s for s in epochs[-1]["shares"] if s["to"] == identity.id), None)
    demand(share is not None and share["env"] is not None, "share", "no share for this identity")
    scope = f"state {epochs[-1]['made']}"
    seed = open_envelope(un64(share["env"]), identity.kem, info("share", vault, scope, identity.id))
    demand(share_hash(epochs[-1]["e"], share["x"], seed).hex() == share["sha256"], "share", "hash")
    keys = {}
    for epoch in reversed(epochs):
        key = keys[epoch["e"]] = XWing(seed)
        key.seed = seed
        demand(key.public == un64(epoch["kem"]), "share", "not the key of the epoch")
        if epoch["previous"] is not None:
            about = info("previous", vault, f"state {epoch['since']}", f"vault-{epoch['e']}")
            seed = open_envelope(un64(epoch["previous"]), key, about)
    return keys
