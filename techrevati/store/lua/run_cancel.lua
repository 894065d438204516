-- run_cancel: end a run and its sub-agents; a leased one is asked to stop and has a grace.
-- Twin: techrevati.store.twin.outside.run_cancel
-- include: _unit _homes _above _finish
--
-- KEYS[1]  clock      the partition
-- ARGV[1]  protocol
-- ARGV[2]  now        us; '' reads the server's clock
-- ARGV[3]  run id
-- ARGV[4]  reason     not empty
-- ARGV[5]  grace      us
-- returns  {1, wanted, status after} or {0, _, status} it was terminal, {-4} run gone
local refused = enter(ARGV[1], ARGV[2])
if refused then return refused end
local r = run_of(ARGV[3])
if not r then return { -4, {} } end
if terminal(r) then return { 0, {}, r.status } end
stop(r, ARGV[4], tonumber(ARGV[5]))
return reply(1, r.status)
