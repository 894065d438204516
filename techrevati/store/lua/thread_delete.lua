-- thread_delete: end what runs on a thread, take the thread away, and begin to forget its runs.
-- Twin: techrevati.store.twin.drop.thread_delete
-- include: _unit _homes _above _finish _drop
--
-- KEYS[1]  clock      the partition
-- ARGV[1]  protocol
-- ARGV[2]  now        us; '' reads the server's clock
-- ARGV[3]  tenant
-- ARGV[4]  thread
-- ARGV[5]  force      1: also when a run is active on it, which is revoked
-- ARGV[6]  limit      runs to forget in this call, <= 128; the rest is for the next one, or the sweep
-- returns  {1 dropped | 0 there was none, wanted, runs forgotten, dropped threads with runs left}
--          {-3, _, active} busy
local refused = enter(ARGV[1], ARGV[2])
if refused then return refused end
local t = thread_of({ tenant = ARGV[3], thread = ARGV[4] })
local known = t.version ~= ''
local active = t.active ~= '' and run_of(t.active)
if active and ARGV[5] ~= '1' then return { -3, {}, active.id } end
if known then drop_thread(t, 'its thread was deleted') end
local forgotten = remove(tonumber(ARGV[6]))
return reply(known and 1 or 0, forgotten, call('ZCARD', DROPS))
