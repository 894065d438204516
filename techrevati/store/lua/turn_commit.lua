-- turn_commit: end a turn under its fencing token: append what it made, move the run; maybe claim the next.
-- Twin: techrevati.store.twin.scripts.turn_commit
-- include: _unit _homes _finish _grant
--
-- KEYS[1]  clock      the partition
-- ARGV[1]  protocol
-- ARGV[2]  now        us; '' reads the server's clock
-- ARGV[3]  run id
-- ARGV[4]  token      refused unless it is the lease's
-- ARGV[5]  move       continue | sleep | park | retry | suspend | handoff | complete | fail | dead
-- ARGV[6]  when       sleep, park, retry: "+us" or "=us"
-- ARGV[7]  target     handoff: agent; park: what it waits for; retry: the failure class
-- ARGV[8]  body       JSON: handoff context, output, error, or what a suspension waits for
-- ARGV[9]  state      '' unchanged | f full | d delta
-- ARGV[10] state JSON
-- ARGV[11] worker
-- ARGV[12] cost       fairness: what the turn cost, minus the 1 that the claim charged; '' 0
-- ARGV[13] usage      "input output micros": added to the run's totals; '' nothing
-- ARGV[14] keep from  checkpoints below this version may go; '' keeps all
-- ARGV[15] bytes      state and messages that this commit adds
-- ARGV[16] next claim '' or a claim id: claim the fairest run of the same role in the same breath
-- ARGV[17] ttl        us, ARGV[18] lane free, ARGV[19] inline: as run_claim
-- ARGV[20...24]       counts: messages, events (type, JSON), inbox ids read, calls (id, alias, alias, when,
--                     default decision), journal (key, JSON)
-- ARGV[25...]         those, in that order
-- returns  {1 | 0 = this commit was made before, wanted, version, home, grant or 0}
--          {-1, _, current token} lease lost, {-4} run gone
local refused = enter(ARGV[1], ARGV[2])
if refused then return refused end
local token, move, body, worker = ARGV[4], ARGV[5], ARGV[8], ARGV[11]
local next_claim, lane_free = ARGV[16], ARGV[18] == '1'

local function next_grant(role)
  if next_claim == '' then return 0 end
  return grant(role, next_claim, worker, tonumber(ARGV[17]), lane_free, tonumber(ARGV[19])) or 0
end

local r = run_of(ARGV[3])
if not r then return { -4, {} } end
if r.token ~= token then
  if r.commit ~= token then return { -1, {}, r.token } end
  local version, home, role = string.match(r.reply, '^(%S*) (%S*) (%S*)$')
  return reply(0, version, home, next_grant(role))
end

local from = 25
local function take(count, width)                     -- the next count * width arguments
  local first = from
  from = from + count * width
  return first, from - 1
end
local t, by, role = thread_of(r), by_of(token), r.role
local m1, m2 = take(tonumber(ARGV[20]), 1)
local e1, e2 = take(tonumber(ARGV[21]), 2)
local i1, i2 = take(tonumber(ARGV[22]), 1)
local c1, c2 = take(tonumber(ARGV[23]), 5)
local j1, j2 = take(tonumber(ARGV[24]), 2)
local again = move == 'park' or move == 'retry'       -- the same turn will run again, from its journal
local stopped = r.cancel ~= '' and move ~= 'complete' and move ~= 'fail'
if again and stopped then move = 'continue' end

if not again then
  if m2 >= m1 then
    for i = m1, m2, 100 do call('RPUSH', K('msgs', t.name), unpack(ARGV, i, math.min(i + 99, m2))) end
    put(t, 'n', f0(num(t.n) + m2 - m1 + 1))
  end
  local version, kind = f0(num(t.version) + 1), ARGV[9]
  local state = kind == '' and {} or { kind, ARGV[10] }
  call('XADD', K('ckpt', t.name), version .. '-0', 'c', token, 'p', t.commit, 'n', t.n, 's', t.spans, 'r', r.id,
    't', r.turn, unpack(state))
  if kind == 'f' then
    put(t, 'full', version, 'since', '0')
    local keep = tonumber(ARGV[14]) or 0
    if num(r.v0) > 0 then keep = math.min(keep, num(r.f0)) end      -- a rollback would return there
    if keep > 0 then call('XTRIM', K('ckpt', t.name), 'MINID', '~', f0(keep) .. '-0') end
  else
    put(t, 'since', f0(num(t.since) + 1))
  end
  put(t, 'version', version, 'commit', token, 'worker', worker, 'bytes', f0(num(t.bytes) + num(ARGV[15])))
end
for i = e1, e2, 2 do event(r, by, ARGV[i], 'data', ARGV[i + 1]) end
for i = i1, i2 do
  if call('HDEL', K('inbox', r.id), ARGV[i]) == 1 and string.sub(ARGV[i], 1, 1) ~= '~' then
    put(r, 'wakes', f0(num(r.wakes) - 1))
  end
end
for i = j1, j2, 2 do
  call('HSETNX', K('journal', r.id), 'e:' .. ARGV[i], ARGV[i + 1])
  put(r, 'j', '1')
end
if ARGV[13] ~= '' then
  local tin, tout, micros = string.match(ARGV[13], '^(%d+) (%d+) (%d+)$')
  call('HINCRBY', K('run', r.id), 'tin', tin)
  call('HINCRBY', K('run', r.id), 'tout', tout)
  call('HINCRBY', K('run', r.id), 'micros', micros)
end
local a = account(role)
if ARGV[12] ~= '' then
  local by_weight = tonumber(ARGV[12]) / tonumber(call('HGET', 'weights:' .. TAG, r.tenant) or 1)
  for _, kind in ipairs({ 'ready', 'fair' }) do
    if call('ZSCORE', K(kind, role), r.tenant) then call('ZINCRBY', K(kind, role), fl(by_weight), r.tenant) end
  end
end

local turn = r.turn
if not again then
  if r.j ~= '' then
    call('DEL', K('journal', r.id))
    put(r, 'j', '')
  end
  put(r, 'turn', f0(num(r.turn) + 1), 'attempt', '0', 'fails', '0')
end
local at = when(ARGV[6])
if stopped then
  event(r, by, 'turn.committed', 'turn', turn, 'role', role, 'move', 'cancelled')
  finish(r, 'cancelled', by, 'reason', r.cancel)
elseif move == 'complete' then
  event(r, by, 'turn.committed', 'turn', turn, 'role', role, 'move', move)
  finish(r, 'completed', by, 'output', body)
elseif move == 'fail' or move == 'dead' then
  finish(r, move == 'dead' and 'dead' or 'failed', by, 'error', body)
else
  leave(r)
  if move == 'park' then
    event(r, by, 'turn.parked', 'turn', turn, 'role', role, 'why', ARGV[7], 'until', f0(at))
    due_add(r, at, ARGV[7])
  elseif move == 'retry' then
    put(r, 'fails', f0(num(r.fails) + 1), 'error', body)
    event(r, by, 'turn.retry', 'turn', turn, 'role', role, 'attempt', r.fails, 'failure', ARGV[7], 'error', body,
      'until', f0(at))
    due_add(r, at, 'backoff')
  elseif move == 'handoff' then
    put(r, 'hops', f0(num(r.hops) + 1), 'home', 'routes', 'status', 'waiting', 'why', 'handoff', 'target', ARGV[7],
      'handed', body)
    event(r, by, 'turn.committed', 'turn', turn, 'role', role, 'move', move, 'target', ARGV[7])
    call('ZADD', ROUTES, f0(NOW), r.id)
    ring_coordinator()
  else
    event(r, by, 'turn.committed', 'turn', turn, 'role', role, 'move', move)
    if move == 'suspend' then
      call('DEL', K('calls', r.id))
      local earliest = math.huge
      for i = c1, c2, 5 do
        local id, expires = ARGV[i], when(ARGV[i + 3])
        for k = 0, 2 do
          local alias = ARGV[i + k]
          if alias ~= '' then
            call('HSET', K('calls', r.id), 'id:' .. alias, id)
            local early = call('HGET', K('decided', r.id), alias)
            if early then call('HSETNX', K('decided', r.id), id, early) end
          end
        end
        if expires then
          call('HSET', K('calls', r.id), 'exp:' .. id, f0(expires) .. ' ' .. ARGV[i + 4])
          earliest = math.min(earliest, expires)
        end
      end
      put(r, 'waits', body)
      at = earliest
    end
    if move == 'continue' or num(r.wakes) > 0 or (move == 'sleep' and at <= NOW) then
      ready_add(r, next_claim ~= '')
    else
      due_add(r, at, move == 'sleep' and 'timer' or 'decision')
    end
  end
end
local home = r.home == '' and '-' or r.home
put(r, 'commit', token, 'reply', t.version .. ' ' .. home .. ' ' .. role)
return reply(1, t.version, home, next_grant(role))
