-- run_start: create a run (and its thread), or return what the idempotency key already made.
-- Twin: techrevati.store.twin.start.run_start
-- include: _unit _homes _above _finish _start
--
-- KEYS[1]  clock      the partition
-- ARGV[1]  protocol
-- ARGV[2]  now        us; '' reads the server's clock
-- ARGV[3]  run id     made by the client; sent again, it gets the same answer
-- ARGV[4]  tenant
-- ARGV[5]  thread
-- ARGV[6]  role
-- ARGV[7]  agent
-- ARGV[8]  on busy    reject | enqueue | interrupt | rollback
-- ARGV[9]  messages   1: carries user messages, so it ends a suspended run
-- ARGV[10] idem       digest of scope and key, or ''
-- ARGV[11] payload    digest of what is started
-- ARGV[12] begin      "+us", "=us" or '' (at once)
-- ARGV[13] deadline   "+us", "=us" or ''
-- ARGV[14] priority
-- ARGV[15] attempts   expiries of one turn before the run is dead
-- ARGV[16] parent     run id of the agent that starts this one, or ''
-- ARGV[17] line max   runs that may wait behind the active one
-- ARGV[18] token      of the parent's lease, if only its holder may start this one; ''
-- ARGV[19...] field, value, ...   kept with the run: input, meta, trace, project
-- returns  {1 made | 0 was there, wanted, run id, thread}
--          {-1, _, current token} the parent's lease is lost
--          {-2, _, run id} key used for something else, {-3, _, active} busy, {-4} parent gone or ended,
--          {-5, _, n} line full, {-6} parent has 128 children
local refused = enter(ARGV[1], ARGV[2])
if refused then return refused end
local id, policy, idem, digest, parent_id = ARGV[3], ARGV[8], ARGV[10], ARGV[11], ARGV[16]

local before = made_before(idem, digest, id, ARGV[5])
if before then return before end
if parent_id ~= '' then
  local parent = run_of(parent_id)
  if not parent or terminal(parent) then return { -4, {} } end
  if ARGV[18] ~= '' and parent.token ~= ARGV[18] then return { -1, {}, parent.token } end
  if call('SCARD', K('kids', parent_id)) >= 128 then return { -6, {} } end
end

local r = run_new(id)
put(r, 'tenant', ARGV[4], 'thread', ARGV[5])
local t = thread_of(r)
local active = t.active ~= '' and run_of(t.active)
local waits = active and active.home == 'due' and active.token == '' and active.why == 'decision' and ARGV[9] == '1'
if active and policy == 'reject' then return { -3, {}, active.id } end
local length = active and call('LLEN', K('line', t.name)) or 0
if active and policy == 'enqueue' and not (waits and length == 0) and length >= tonumber(ARGV[17]) then
  return { -5, {}, length }
end

if t.version == '' then begin_thread(t, r) end
begin_run(r, t, ARGV[6], ARGV[7], ARGV[14], ARGV[15], idem, digest, when(ARGV[12]), when(ARGV[13]), 19)
if parent_id ~= '' then
  local parent = run_of(parent_id)
  put(r, 'parent', parent_id, 'score', parent.score)                -- as old as its parent, to whoever waits
  call('SADD', K('kids', parent_id), id)
  put(parent, 'kids', '1')
  event(parent, '-', is_tool(r) and 'call.started' or 'child.started', 'child', id, 'agent', r.agent)
end

if active and (policy == 'interrupt' or policy == 'rollback') then
  need(active, 'v0', 'f0', 'k0')
  local since, back_full, base = active.v0, active.f0, active.k0
  for _, other in ipairs(call('LRANGE', K('line', t.name), 0, -1)) do
    local behind = run_of(other)
    if behind then finish(behind, 'superseded', '-', 'reason', policy .. ' by ' .. id) end
  end
  revoke(active, 'superseded', 'reason', policy .. ' by ' .. id)
  if policy == 'rollback' and num(t.version) > num(since) then
    -- Versions only grow: a new one that says "state of `since`".
    local n, spans, commit = '0', '0:', 'r' .. id
    local old = num(since) > 0 and call('XRANGE', K('ckpt', t.name), since .. '-0', since .. '-0')[1]
    if old then
      local fields = {}
      for i = 1, #old[2], 2 do fields[old[2][i]] = old[2][i + 1] end
      n, spans = fields.n, fields.s
    end
    local version = f0(num(t.version) + 1)
    local view = string.gsub(spans, '%d+:$', function(open)
      if open == n .. ':' then return '' end        -- an empty last span is dropped
      return open .. n .. ','
    end)
    view = view .. t.n .. ':'
    call('XADD', K('ckpt', t.name), version .. '-0', 'c', commit, 'p', t.commit, 'n', t.n, 's', view, 'r', id,
      'a', NOWS, 'b', since, 'bf', back_full)
    put(t, 'version', version, 'commit', commit, 'spans', view, 'full', version, 'since', '0', 'worker', '',
      'base', num(since) > 0 and base or '')
  end
  activate(r)
elseif waits then
  finish(active, 'superseded', '-', 'reason', 'a new message by ' .. id)
  if t.active == '' then activate(r) else line_add(r) end
elseif active then
  line_add(r)
else
  activate(r)
end
return reply(1, id, r.thread)
