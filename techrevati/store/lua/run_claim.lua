-- run_claim: lease the fairest ready run of a role, with all that its turn needs.
-- Twin: techrevati.store.twin.lease.run_claim
-- include: _unit _homes _grant
--
-- KEYS[1]  clock      the partition
-- ARGV[1]  protocol
-- ARGV[2]  now        us; '' reads the server's clock
-- ARGV[3]  role
-- ARGV[4]  claim id   made by the worker; sent again, it gets the same grant
-- ARGV[5]  worker
-- ARGV[6]  ttl        us
-- ARGV[7]  lane free  1: this process runs no other last attempt
-- ARGV[8]  ticket     1: a ticket made us come, so one fewer is out
-- ARGV[9]  inline     bytes of thread to send along to a worker that did not serve it last
-- returns  {1, wanted, grant} or {0, wanted, roles' ready count}
local refused = enter(ARGV[1], ARGV[2])
if refused then return refused end
local role, claim_id, worker, ttl = ARGV[3], ARGV[4], ARGV[5], tonumber(ARGV[6])
local lane_free, inline = ARGV[7] == '1', tonumber(ARGV[9])

local g = grant(role, claim_id, worker, ttl, lane_free, inline, ARGV[8] == '1')
if g then return reply(1, g) end
return reply(0, account(role).ready)
