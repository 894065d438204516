-- run_route: act on a coordinator's decision about a handoff, if the run still stands at that hop.
-- Twin: techrevati.store.twin.coordinate.run_route
-- include: _unit _homes _above _finish
--
-- KEYS[1]  clock      the partition
-- ARGV[1]  protocol
-- ARGV[2]  now        us; '' reads the server's clock
-- ARGV[3]  run id
-- ARGV[4]  hop
-- ARGV[5]  action     place | wait | fail
-- ARGV[6]  role       place: the pool
-- ARGV[7]  agent      place
-- ARGV[8]  when       wait: "+us"
-- ARGV[9]  why        wait: what is missing; fail: JSON of the error; place: 1 if the agent has hooks for a run's end
-- returns  {1, wanted} or {0, _} it stands elsewhere by now, {-4} run gone
local refused = enter(ARGV[1], ARGV[2])
if refused then return refused end
local r = run_of(ARGV[3])
if not r then return { -4, {} } end
if r.home ~= 'routes' or r.hops ~= ARGV[4] then return { 0, {} } end
if ARGV[5] == 'place' then
  local source = r.agent
  leave(r)
  put(r, 'role', ARGV[6], 'agent', ARGV[7], 'detail', '')
  if r.winds ~= ARGV[9] then put(r, 'winds', ARGV[9]) end
  event(r, '-', 'handoff.placed', 'source', source, 'target', r.agent, 'role', r.role)
  ready_add(r)
elseif ARGV[5] == 'wait' then
  leave(r)
  if r.detail ~= ARGV[9] then                       -- it is asked again and again: one event for one reason
    put(r, 'detail', ARGV[9])
    event(r, '-', 'run.waiting', 'why', ARGV[9])
  end
  due_add(r, when(ARGV[8]) or NOW, 'route')
else
  finish(r, 'failed', '-', 'error', ARGV[9])
end
return reply(1)
