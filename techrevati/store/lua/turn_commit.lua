-- turn_commit: end a turn under its fencing token: append what it made, move the run; maybe claim the next.
-- Twin: techrevati.store.twin.commit.turn_commit
-- include: _unit _homes _above _finish _grant
--
-- KEYS[1]  clock      the partition
-- ARGV[1]  protocol
-- ARGV[2]  now        us; '' reads the server's clock
-- ARGV[3]  run id
-- ARGV[4]  token      refused unless it is the lease's
-- ARGV[5]  move       continue | sleep | park | retry | suspend | handoff | complete | fail | dead
-- ARGV[6]  when       sleep, park, retry: "+us" or "=us"; suspend: at the latest, or ''
-- ARGV[7]  target     handoff: agent; park: what it waits for; retry: the failure class; suspend without calls:
--                     how many ends of sub-agents it waits for
-- ARGV[8]  body       JSON: handoff context, output, error, or what a suspension waits for
-- ARGV[9]  state      '' unchanged | f full | d delta
-- ARGV[10] state JSON
-- ARGV[11] worker
-- ARGV[12] cost       fairness: what the turn cost, minus the 1 that the claim charged; '' 0
-- ARGV[13] usage      "input output micros": added to the run's totals; '' nothing
-- ARGV[14] keep from  checkpoints below this version may go; '' keeps all
-- ARGV[15] bytes      state and messages that this commit adds
-- ARGV[16] next claim '' or a claim id: claim the fairest run of the same role in the same breath
-- ARGV[17] ttl        us, ARGV[18] lane free, ARGV[19] ticket, ARGV[20] inline: as run_claim
-- ARGV[21...25]       counts: messages, events (type, JSON), inbox ids read, calls (id, alias, alias, when,
--                     default decision), journal (key, JSON)
-- ARGV[26...]         those, in that order
-- returns  {1 | 0 = this commit was made before, wanted, version, home, grant or the role's ready count}
--          {-1, _, current token} lease lost, {-4} run gone; a malformed move is a script error, before any write
local refused = enter(ARGV[1], ARGV[2])
if refused then return refused end
local token, move, body, worker = ARGV[4], ARGV[5], ARGV[8], ARGV[11]
local next_claim, lane_free, at = ARGV[16], ARGV[18] == '1', when(ARGV[6])
local timed, again = { sleep = true, park = true, retry = true }, { park = true, retry = true, dead = true }
if not string.find(' continue sleep park retry suspend handoff complete fail dead ', ' ' .. move .. ' ', 1, true)
  or (timed[move] and not at)
  or (move == 'park' and string.find(' lease decision start route cancel ', ' ' .. ARGV[7] .. ' ', 1, true)) then
  return redis.error_reply('turn_commit: malformed move ' .. move .. ' ' .. ARGV[6] .. ' ' .. ARGV[7])
end

local function next_grant(role)
  if next_claim == '' then return 0 end
  local g = grant(role, next_claim, worker, tonumber(ARGV[17]), lane_free, tonumber(ARGV[20]), ARGV[19] == '1')
  if g then return g end
  offer(account(role))                               -- the claim did not take it, so a ticket has to
  return account(role).ready
end

local r = run_of(ARGV[3])
if not r then return { -4, {} } end
if token == '' or r.token ~= token then
  need(r, 'commit', 'reply')
  if token == '' or r.commit ~= token then
    call('HINCRBY', KEYS[1], 'fenced', 1)
    return { -1, {}, r.token }
  end
  local version, home, role = string.match(r.reply, '^(%S*) (%S*) (%S*)$')
  return reply(0, version, home, next_grant(role))
end

local from = 26
local function take(count, width)                     -- the next count * width arguments
  local first = from
  from = from + count * width
  return first, from - 1
end
local t, by, role, turn = thread_of(r), by_of(token), r.role, r.turn
local m1, m2 = take(tonumber(ARGV[21]), 1)
local e1, e2 = take(tonumber(ARGV[22]), 2)
local i1, i2 = take(tonumber(ARGV[23]), 1)
local c1, c2 = take(tonumber(ARGV[24]), 5)
local j1, j2 = take(tonumber(ARGV[25]), 2)
local stays = again[move]                             -- the same turn may run again, from its journal
local stopped = r.cancel ~= '' and move ~= 'complete' and move ~= 'fail'

-- What the turn made.
if not stays then
  if m2 >= m1 then
    for i = m1, m2, 100 do call('RPUSH', K('msgs', t.name), unpack(ARGV, i, min(i + 99, m2))) end
    put(t, 'n', f0(num(t.n) + m2 - m1 + 1))
  end
  local version, kind = f0(num(t.version) + 1), ARGV[9]
  if kind == '' then
    call('XADD', K('ckpt', t.name), version .. '-0', 'c', token, 'p', t.commit, 'n', t.n, 's', t.spans, 'r', r.id,
      't', turn, 'a', NOWS)
  else
    call('XADD', K('ckpt', t.name), version .. '-0', 'c', token, 'p', t.commit, 'n', t.n, 's', t.spans, 'r', r.id,
      't', turn, 'a', NOWS, kind, ARGV[10])
  end
  if kind == 'f' then
    put(t, 'full', version, 'since', '0', 'base', '')
    local keep = min(num(ARGV[14]), num(version))
    if keep > 0 then
      need(r, 'v0', 'k0')
      if num(r.v0) > 0 then keep = min(keep, num(r.k0)) end         -- a rollback would return there
      if keep > 0 then call('XTRIM', K('ckpt', t.name), 'MINID', '~', f0(keep) .. '-0') end
    end
  else
    put(t, 'since', f0(num(t.since) + 1))
  end
  put(t, 'version', version, 'commit', token, 'worker', worker, 'bytes', f0(num(t.bytes) + num(ARGV[15])))
end
for i = e1, e2, 2 do event(r, by, ARGV[i], 'data', ARGV[i + 1]) end
-- A decision that this turn read before its call was asked for is read again by the next.
local early = {}
if i2 >= i1 and move == 'suspend' then
  for i = c1, c2, 5 do
    if call('HEXISTS', K('calls', r.id), 'id:' .. ARGV[i]) == 0 then
      for _, id in ipairs(call('HMGET', K('decided', r.id), ARGV[i], ARGV[i + 1], ARGV[i + 2])) do
        if id then early[id] = true end
      end
    end
  end
end
for i = i1, i2 do
  if not early[ARGV[i]] and call('HDEL', K('inbox', r.id), ARGV[i]) == 1 and string.sub(ARGV[i], 1, 1) ~= '~' then
    put(r, 'wakes', f0(num(r.wakes) - 1))
  end
end
for i = j1, j2, 2 do
  call('HSETNX', K('journal', r.id), 'e:' .. ARGV[i], ARGV[i + 1])
  put(r, 'j', '1')
end
if ARGV[13] ~= '' then
  local tin, tout, micros = string.match(ARGV[13], '^(%d+) (%d+) (%d+)$')
  need(r, 'tin', 'tout', 'micros')
  put(r, 'tin', f0(num(r.tin) + tin), 'tout', f0(num(r.tout) + tout), 'micros', f0(num(r.micros) + micros))
end
if ARGV[12] ~= '' then charge(r, tonumber(ARGV[12])) end

-- A call may have been decided, under any of its ids, before it was known: the first decision stands.  One that
-- was read answered an earlier question of the same call.
local function adopt(...)
  local decided, first, order, ids = K('decided', r.id), nil, nil, { ... }
  local id, found = ids[1], call('HMGET', decided, ...)
  for k, entry in ipairs(found) do
    local text = entry and call('HGET', K('inbox', r.id), entry)
    local n = text and num(string.match(text, '^%d+'))
    if entry and not text then call('HDEL', decided, ids[k]) end
    if n and (not order or n < order) then first, order = entry, n end
  end
  if not first then return end
  call('HSET', decided, id, first)
  for _, entry in ipairs(found) do
    if entry and entry ~= first and call('HDEL', K('inbox', r.id), entry) == 1 then
      if string.sub(entry, 1, 1) ~= '~' then put(r, 'wakes', f0(num(r.wakes) - 1)) end
    end
  end
end

-- Note the calls a run waits for; gives when the first of them expires.
local function ask()
  local calls, earliest = K('calls', r.id), math.huge
  call('DEL', calls)
  for i = c1, c2, 5 do
    local id, expires = ARGV[i], when(ARGV[i + 3])
    for k = i, i + 2 do
      if ARGV[k] ~= '' then call('HSET', calls, 'id:' .. ARGV[k], id) end
    end
    if r.inbox_n ~= '' then adopt(id, ARGV[i + 1], ARGV[i + 2]) end
    if expires then
      call('HSET', calls, 'exp:' .. id, f0(expires) .. ' ' .. ARGV[i + 4])
      earliest = min(earliest, expires)
    end
  end
  put(r, 'waits', body)
  if c2 >= c1 then asks(r, body) end
  return earliest
end

-- Where the run goes.
if not stays then
  if r.j ~= '' then
    call('DEL', K('journal', r.id))
    put(r, 'j', '')
  end
  put(r, 'turn', f0(num(turn) + 1), 'attempt', '0', 'fails', '0')
end
if stopped then
  event(r, by, 'turn.committed', 'turn', turn, 'role', role, 'move', 'cancelled')
  finish(r, 'cancelled', by, 'reason', r.cancel)
elseif move == 'complete' then
  event(r, by, 'turn.committed', 'turn', turn, 'role', role, 'move', move)
  finish(r, 'completed', by, 'output', body)
elseif move == 'fail' or move == 'dead' then
  finish(r, move == 'dead' and 'dead' or 'failed', by, 'error', body)
elseif move == 'park' then
  leave(r)
  event(r, by, 'turn.parked', 'turn', turn, 'role', role, 'why', ARGV[7], 'until', f0(at))
  due_add(r, at, ARGV[7])
elseif move == 'retry' then
  leave(r)
  put(r, 'fails', f0(num(r.fails) + 1), 'error', body)
  event(r, by, 'turn.retry', 'turn', turn, 'role', role, 'attempt', r.fails, 'failure', ARGV[7], 'error', body,
    'until', f0(at))
  due_add(r, at, 'backoff')
elseif move == 'handoff' then
  leave(r)
  put(r, 'hops', f0(num(r.hops) + 1), 'target', ARGV[7], 'handed', body)
  event(r, by, 'turn.committed', 'turn', turn, 'role', role, 'move', move, 'target', ARGV[7])
  tell_turn(r, turn, move)
  routes_add(r)
else
  leave(r)
  event(r, by, 'turn.committed', 'turn', turn, 'role', role, 'move', move)
  tell_turn(r, turn, move)
  local open = move == 'suspend' and c2 < c1 and num(ARGV[7]) or 0
  if move == 'suspend' then at = min(ask(), at or math.huge) end
  if open > 0 then
    open = still_open(r, open)
    put(r, 'open', f0(open))
  end
  if move == 'continue' or (num(r.wakes) > 0 and open == 0) or (move == 'sleep' and at <= NOW) then
    ready_add(r, next_claim ~= '')
  else
    due_add(r, at, move == 'sleep' and 'timer' or open > 0 and 'child' or 'decision')
  end
end
local home = r.home == '' and '-' or r.home
put(r, 'commit', token, 'reply', t.version .. ' ' .. home .. ' ' .. role)
return reply(1, t.version, home, next_grant(role))
