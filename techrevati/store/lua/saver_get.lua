-- saver_get: read one checkpoint, unless the caller has it.
-- Twin: techrevati.store.twin.savers.saver_get
-- include: _clock _saver
--
-- KEYS[1]  head       the thread's checkpoints
-- ARGV[1]  protocol
-- ARGV[2]  now        not used: this only reads
-- ARGV[3]  by         last, id, key
-- ARGV[4]  value      of the id or key
-- ARGV[5]  have       id of a checkpoint that need not be sent, or ''
-- returns  {1, _, number, how many, record, ..., body, ...} it and what it builds on, oldest first, without bodies
--          if these are big: read them then, {2, _, number} the caller has it, {0, _} there is none
local refused = only_reads(ARGV[1])
if refused then return refused end
local by, value, have = ARGV[3], ARGV[4], ARGV[5]
local number
if by == 'last' then
  local head = call('HMGET', HEAD, 'n', 'id')
  if head[2] and head[2] ~= '' then
    if head[2] == have then return { 2, {}, head[1] } end
    number = tonumber(head[1])
  end
else
  local found = by == 'id' and call('HGET', HEAD, 'i' .. value) or by == 'key' and call('ZSCORE', KEYED, value)
  number = tonumber(found or nil)
  if number and have ~= '' and tonumber(call('HGET', HEAD, 'i' .. have) or nil) == number then
    return { 2, {}, f0(number) }
  end
end
local found = number and chain(number)
if not found then return { 0, {} } end
return tell({ 1, {}, f0(number), #found }, found)
