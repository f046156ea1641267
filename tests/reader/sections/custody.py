"""7. Custody: genesis, states, requests, the audit log."""

import json
import re

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
    check_names(custodians)
    for custodian in custodians:
        demand(id_of(un64(custodian["sign"]), un64(custodian["kem"])) == custodian["id"], "state", "a custodian's id")


def check_names(people):
    demand(distinct(one["label"] for one in people), "state", "a name twice")
    demand(not any(re.fullmatch("[0-9a-f]{32}", one["label"]) for one in people), "state", "a name like an id")


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
READER = table(id=HEX16, label=LABEL, sign=SIGN, kem=KEM, standing=boolean, expires=or_null(time))
EPOCH = table(e=U32, since=INT, kem=KEM, status=word("current", "kept"), made=INT,
              shares=many(table(to=HEX16, x=U8, env=or_null(b64), sha256=HEX32)), previous=or_null(b64))
STATE = table(n=INT, vault=HEX32, quorum=U8, custodians=many(CUSTODIAN), epochs=many(EPOCH), gateways=GATEWAYS,
              readers=many(READER))


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
    check_names(state["readers"])
    for reader in state["readers"]:
        demand(id_of(un64(reader["sign"]), un64(reader["kem"])) == reader["id"], "state", "a reader's id")
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

SEAL = or_null(table(gateway=HEX16, n=INT, hash=HEX32, prev=or_null(HEX32)))
OUTLINE = table(n=INT, quorum=U8, custodians=many(table(id=HEX16, label=LABEL)), epoch=U32, gateways=GATEWAYS,
                readers=many(table(id=HEX16, label=LABEL, standing=boolean, expires=or_null(time))))
OPERATION = one_of(
    **{"enrol-gateway": table(gateway=CUSTODIAN), "revoke-gateway": table(gateway=HEX16, until=UNTIL),
       "admit-gateway": table(gateway=HEX16, run=or_null(HEX16)),
       "dismiss-gateway": table(gateway=HEX16, run=or_null(HEX16), until=UNTIL), "rotate": table(epoch=U32),
       "add-custodian": table(custodian=CUSTODIAN), "remove-custodian": table(custodian=HEX16),
       "change-quorum": table(quorum=U8), "add-reader": table(reader=READER), "remove-reader": table(reader=HEX16),
       "grant": table(reader=HEX16, runs=many(HEX16)), "revoke": table(reader=HEX16, runs=many(HEX16)),
       "retire": table(runs=many(table(run=HEX16, gateway=HEX16, seq=INT, run_note=HEX32, prev=or_null(HEX32), seal=SEAL))),
       "recover": table(copies=many(table(custodian=HEX16, n=INT))), "rekey": table(runs=many(HEX16))}
)
NEW_KEY, NEW_SHARES = {"rotate", "remove-custodian", "change-quorum"}, {"add-custodian"}
RELEASES = NEW_KEY | NEW_SHARES | {"grant", "recover", "rekey"}
REQUEST = table(vault=HEX32, head=table(n=INT, hash=HEX32), before=HEX32, op=OPERATION, reason=clean_text(0, 1024),
                releases_share=boolean, executor=table(kem=KEM, sign=SIGN), created=time, expires=time,
                nonce=HEX16, state=or_null(OUTLINE))
APPROVAL = table(custodian=HEX16, env_sha256=or_null(HEX32), sig=b64_key(lambda sig: len(sig) == 64))


def state_hash_of(state):
    """Of state 0 that of the computed text, without envelopes."""
    if state["n"] == 0:
        state = json.loads(dumps(state))
        for share in state["epochs"][0]["shares"]:
            share["env"] = None
    return sha256(text("state", state)).hex()


def outline(state):
    return {"n": state["n"], "quorum": state["quorum"],
            "custodians": [{"id": c["id"], "label": c["label"]} for c in state["custodians"]],
            "epoch": state["epochs"][-1]["e"], "gateways": state["gateways"],
            "readers": [{name: r[name] for name in ("id", "label", "standing", "expires")} for r in state["readers"]]}


# 7.4 The audit log

RETIRED = table(vault=HEX32, run=HEX16, gateway=HEX16, seq=INT, run_note=HEX32, prev=or_null(HEX32), time=time)
REMOVED = table(vault=HEX32, run=HEX16, gateway=HEX16, seq=INT, run_note=HEX32, prev=or_null(HEX32),
                seal=SEAL, custodian=HEX16, reason=clean_text(0, 1024), time=time)
REPLACEMENT = table(run=HEX16, seal=HEX32, new=HEX16, worker=HEX16, sign=SIGN)
HEAD = table(gateway=HEX16, seq=INT, hash=or_null(HEX32), seals=INT, seals_hash=or_null(HEX32))
LINE = table(n=INT, prev=HEX32, time=time, request=REQUEST,
             result=table(state=or_null(HEX32), runs=many(REPLACEMENT)), heads=many(HEAD),
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
    chain(request["before"] == state_hash_of(before), "the request is for another state")
    chain(not line["heads"] and are_replaced(line["result"]["runs"], request["op"]), "heads and runs")
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


def are_replaced(replacements, operation):
    """Whether a line says what it must of the runs that its operation re-keys, and of no others."""
    ids = [one[field] for one in replacements for field in ("run", "new")]
    workers = {(one["worker"], one["sign"]) for one in replacements}
    named = operation["rekey"]["runs"] if "rekey" in operation else []
    return [one["run"] for one in replacements] == named and distinct(ids) and len(workers) <= 1


def verify_approvals(line, before, chain):
    request, custodians = line["request"], {c["id"]: c for c in before["custodians"]}
    releases = next(iter(request["op"])) in RELEASES
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
    name, told = next(iter(operation.items()))
    old, new = before["epochs"][-1], state["epochs"][-1]
    changed = "key" if new["e"] != old["e"] else "shares" if new["made"] != old["made"] else None
    chain(changed == ("key" if name in NEW_KEY else "shares" if name in NEW_SHARES else None), "the vault key")
    expected = json.loads(dumps(before))
    expected["n"] += 1
    EFFECTS[name](told, before, state, expected, chain)
    same = outline(expected) | {"epoch": new["e"]} == outline(state)
    chain(same and all(expected[people] == state[people] for people in ("custodians", "readers")),
          "the operation changes something else")


def find(people, wanted):
    return next((one for one in people if one["id"] == wanted), None)


def enrolled(told, before, state, expected, chain):
    new = told["gateway"]
    chain(id_of(un64(new["sign"]), un64(new["kem"])) == new["id"], "id of the gateway")
    chain(find(before["gateways"], new["id"]) is None, "enrolled before")
    expected["gateways"].append({"id": new["id"], "label": new["label"], "sign": new["sign"], "until": None})


def still_enrolled(told, before, chain):
    known = find(before["gateways"], told["gateway"])
    chain(known is not None, "not enrolled")
    chain(known["until"] is None, "ended before")


def ended(told, before, state, expected, chain):
    still_enrolled(told, before, chain)
    end = told["until"]
    whole = (end["seq"] == 0) == (end["hash"] is None) and (end["seals"] == 0) == (end["seals_hash"] is None)
    chain(whole, "end of the gateway")
    find(expected["gateways"], told["gateway"])["until"] = end


def admitted(told, before, state, expected, chain):
    still_enrolled(told, before, chain)


def dismissed(told, before, state, expected, chain):
    still_enrolled(told, before, chain)
    chain(is_whole(told["until"]), "end of the admission")


def rotated(told, before, state, expected, chain):
    chain(told["epoch"] == state["epochs"][-1]["e"], "number of the epoch")


def custodian_added(told, before, state, expected, chain):
    one = told["custodian"]
    chain(not any(one["id"] == c["id"] or one["label"] == c["label"] for c in before["custodians"]), "a custodian already")
    expected["custodians"].append(one)


def custodian_removed(told, before, state, expected, chain):
    chain(find(before["custodians"], told["custodian"]) is not None, "no such custodian")
    expected["custodians"] = [c for c in before["custodians"] if c["id"] != told["custodian"]]
    chain(expected["quorum"] <= len(expected["custodians"]), "the quorum cannot be reached")


def quorum_changed(told, before, state, expected, chain):
    chain(told["quorum"] != before["quorum"], "the quorum already")
    chain(1 <= told["quorum"] <= len(before["custodians"]), "the quorum cannot be reached")
    expected["quorum"] = told["quorum"]


def reader_added(told, before, state, expected, chain):
    one = told["reader"]
    chain(find(before["readers"], one["id"]) != one, "a reader already")
    others = [r for r in before["readers"] if r["id"] != one["id"]]
    chain(all(r["label"] != one["label"] for r in others), "a reader of that name already")
    expected["readers"] = others + [one]


def reader_removed(told, before, state, expected, chain):
    chain(find(before["readers"], told["reader"]) is not None, "no such reader")
    expected["readers"] = [r for r in before["readers"] if r["id"] != told["reader"]]


def runs_named(told, before, state, expected, chain):
    chain(find(before["readers"], told["reader"]) is not None, "no such reader")
    runs = told["runs"]
    chain(1 <= len(runs) <= 10_000 and all(a < b for a, b in zip(runs, runs[1:])), "runs")


def rekeyed(told, before, state, expected, chain):
    runs = told["runs"]
    chain(1 <= len(runs) <= 1_000 and all(a < b for a, b in zip(runs, runs[1:])), "runs")


def runs_retired(told, before, state, expected, chain):
    runs = [one["run"] for one in told["runs"]]
    chain(1 <= len(runs) <= 10_000 and all(a < b for a, b in zip(runs, runs[1:])), "runs")


def recovered(told, before, state, expected, chain):
    seen = told["copies"]
    who = [one["custodian"] for one in seen]
    chain(all(a < b for a, b in zip(who, who[1:])) and all(find(before["custodians"], one) for one in who)
          and any(one["n"] >= before["n"] for one in seen), "copies")


EFFECTS = {
    "enrol-gateway": enrolled, "revoke-gateway": ended, "admit-gateway": admitted,
    "dismiss-gateway": dismissed, "rotate": rotated,
    "add-custodian": custodian_added, "remove-custodian": custodian_removed, "change-quorum": quorum_changed,
    "add-reader": reader_added, "remove-reader": reader_removed, "grant": runs_named, "revoke": runs_named,
    "retire": runs_retired, "recover": recovered, "rekey": rekeyed,
}


def follow(zero, zero_file, log, state_file, line_file=lambda n: None, took=lambda op: None):
    """The newest state and head of a chain, the state's hash, who was admitted: {(gateway, run or None): until}, and
    which runs replace others: {new: what the line says}.

    `state_file(n)` and `line_file(n)` give those files, or None; `took` is told each operation."""
    admitted, replaced = {}, {}
    state, head = zero, {"n": 0, "hash": zero["vault"]}
    state_hash = sha256(text("state", zero)).hex()
    if zero_file is not None:
        state = take_envelopes(zero, zero_file)
    demand(not log or log.endswith(b"\n"), "truncated", "audit.log")

    def take(data, after):
        nonlocal state, head, state_hash
        line = parse_line(utf8(data), LINE)
        again = any(one["new"] in replaced for one in line["result"]["runs"])
        demand(not again, "chain", f"line {line['n']}: a run was named before")
        state = verify_line(line, head, state, after or state_file(line["n"]))
        replaced.update((one["new"], one) for one in line["result"]["runs"])
        took(line["request"]["op"])
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
    return state, head, state_hash, admitted, replaced


def times(a, b):
    """The product in GF(2^8) modulo 0x11d."""
    product = 0
    while b:
        product ^= a if b & 1 else 0
        a = a << 1 ^ (0x11d if a & 0x80 else 0)
        b >>= 1
    return product


def inverse(a):
    return next(b for b in range(1, 256) if times(a, b) == 1)


def combine(points):
    """The values at 0 of the polynomials through {x: 32 bytes}."""
    secret = bytes(32)
    for x, y in points.items():
        factor = 1
        for other in points:
            if other != x:
                factor = times(factor, times(other, inverse(other ^ x)))
        secret = bytes(a ^ times(factor, b) for a, b in zip(secret, y))
    return secret


def open_epochs(identities, state):
    """The key of every epoch, {e: XWing}, from the shares of as many custodians as the quorum."""
    epochs, vault = state["epochs"], bytes.fromhex(state["vault"])
    scope, points = f"state {epochs[-1]['made']}", {}
    for identity in identities:
        share = next((s for s in epochs[-1]["shares"] if s["to"] == identity.id), None)
        demand(share is not None and share["env"] is not None, "share", "no share for this identity")
        y = open_envelope(un64(share["env"]), identity.kem, info("share", vault, scope, identity.id))
        demand(share_hash(epochs[-1]["e"], share["x"], y).hex() == share["sha256"], "share", "hash")
        points[share["x"]] = y
    demand(len(points) >= state["quorum"], "share", f"{len(points)} of {state['quorum']} custodians")
    seed = combine(points)
    keys = {}
    for epoch in reversed(epochs):
        key = keys[epoch["e"]] = XWing(seed)
        key.seed = seed
        demand(key.public == un64(epoch["kem"]), "share", "not the key of the epoch")
        if epoch["previous"] is not None:
            about = info("previous", vault, f"state {epoch['since']}", f"vault-{epoch['e']}")
            seed = open_envelope(un64(epoch["previous"]), key, about)
    return keys
