-- inbox_put: hand something from outside to a run: a decision, a steering message.  A decision for a call that
--            a sub-agent asks, however far below, is handed down to it.
-- Twin: techrevati.store.twin.outside.inbox_put
-- include: _unit _homes _above _finish
--
-- KEYS[1]  clock      the partition
-- ARGV[1]  protocol
-- ARGV[2]  now        us; '' reads the server's clock
-- ARGV[3]  run id
-- ARGV[4]  entry id   made by the caller; sent again, it changes nothing.  "~..." does not wake the run
-- ARGV[5]  kind       decision | steer
-- ARGV[6]  call id    decision: any id of the call, or "<run>/<id>" of a sub-agent's
-- ARGV[7]  JSON
-- returns  {1 stored | 0 was there, wanted} or {-4} run gone, {-5, _, status} terminal,
--          {-6} the run waits, and not for that call, {-7} another decision came first, {-9, _, n} inbox full,
--          {-13} several sub-agents ask a call of that id
local refused = enter(ARGV[1], ARGV[2])
if refused then return refused end
local r, id, kind, call_id = run_of(ARGV[3]), ARGV[4], ARGV[5], ARGV[6]
if not r then return { -4, {} } end
local put_before = 'put:' .. id
if call('HEXISTS', K('decided', r.id), put_before) == 1 then return { 0, {} } end
if terminal(r) then return { -5, {}, r.status } end
local to, canonical = r, call_id
if kind == 'decision' then
  local function look(of)
    local asked = call('HGET', K('calls', of.id), 'id:' .. call_id)
    canonical = asked or call_id
    return asked, call('HEXISTS', K('decided', of.id), canonical) == 1
  end
  local asked, done = look(r)
  local code = done and -7 or -6
  if done or not asked then                         -- it may be for a sub-agent's call
    local below, name = asker(r, call_id)
    if below then
      to, call_id = below, name
      asked, done = look(to)
      code = done and -7 or -6
      if call('HEXISTS', K('decided', to.id), put_before) == 1 then return { 0, {} } end
    elseif name == -5 then return { -6, {} }
    elseif code == -6 then code = name end
  end
  local waits = to.home == 'due' and to.token == '' and (to.why == 'decision' or to.why == 'child')
  if done or code < -6 or (not asked and waits) then return { code, {} } end
end
local waiting = call('HLEN', K('inbox', to.id))
if waiting >= 512 then return { -9, {}, waiting } end
call('HSET', K('decided', to.id), put_before, kind)
if to ~= r then call('HSET', K('decided', r.id), put_before, kind) end
if kind == 'decision' then
  call('HSET', K('decided', to.id), canonical, id, call_id, id)
  was_decided(to, canonical)
end
inbox_add(to, id, kind, ARGV[7])
return reply(1)
