"""Lua scripts of the shared limits; each is atomic, and may be run again when its answer was lost.

Below the prefix, Redis has:

- `nodes`: sorted set of the ids of living nodes; the score is the time in ms until which one counts as alive
- `slots`: hash; for each node, how many replies it generates at once
- `places:<node>`: hash; for each place, as JSON: `visitor`, `priority`, `max_running` (-1: no limit), `state`
  and `since`, its number in the order in which requests were submitted
- `waiting:<visitor>`: sorted set of `<node>:<place>` by `since`; 0 where no request was submitted yet
- `running:<visitor>`: set of `<node>:<place>`
- `turns`: hash; for each visitor with waiting requests the number of its turn: the lowest is next
- `tokens:<visitor>`: hash; `used` tokens as of `at`, in ms
"""

from __future__ import annotations

# The beginning of each script, which also frees what dead nodes have.
COMMON = """
local P = KEYS[1]
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

local function waiting(visitor) return P .. 'waiting:' .. visitor end
local function running(visitor) return P .. 'running:' .. visitor end
local function places(node) return P .. 'places:' .. node end
local function node_of(member) return string.match(member, '^[^:]+') end

local function leave(node, id, place)
  local member = node .. ':' .. id
  redis.call('SREM', running(place.visitor), member)
  redis.call('ZREM', waiting(place.visitor), member)
  if redis.call('EXISTS', waiting(place.visitor)) == 0 then
    redis.call('HDEL', P .. 'turns', place.visitor)
  end
end

local function enter(node, id, place)
  local member = node .. ':' .. id
  redis.call('HSET', places(node), id, cjson.encode(place))
  if place.state == 'running' then
    redis.call('SADD', running(place.visitor), member)
  else
    redis.call('ZADD', waiting(place.visitor), place.since, member)
  end
  if place.state == 'waiting' then
    redis.call('HSETNX', P .. 'turns', place.visitor, redis.call('INCR', P .. 'turn'))
  end
end

local function forget(node)
  local held = redis.call('HGETALL', places(node))
  for i = 1, #held, 2 do leave(node, held[i], cjson.decode(held[i + 1])) end
  redis.call('DEL', places(node))
  redis.call('HDEL', P .. 'slots', node)
  redis.call('ZREM', P .. 'nodes', node)
end

local function used_tokens(visitor, limit)
  local used = redis.call('HMGET', P .. 'tokens:' .. visitor, 'used', 'at')
  return used[1] and math.max(used[1] - (now - used[2]) * limit / 60000, 0) or 0
end

local function use_tokens(visitor, num, limit)
  local used = math.max(used_tokens(visitor, limit) + num, 0)
  redis.call('HSET', P .. 'tokens:' .. visitor, 'used', tostring(used), 'at', now)
  redis.call('PEXPIRE', P .. 'tokens:' .. visitor, math.ceil(used * 60000 / limit) + 1000)
end

for _, node in ipairs(redis.call('ZRANGEBYSCORE', P .. 'nodes', '-inf', now)) do forget(node) end
"""

# ARGV: node, time to live in ms. Returns whether the node is known.
BEAT = (
    COMMON
    + """
if not redis.call('ZSCORE', P .. 'nodes', ARGV[1]) then return 0 end
redis.call('ZADD', P .. 'nodes', now + ARGV[2], ARGV[1])
return 1
"""
)

# ARGV: node, time to live in ms, slots, then id and JSON of each of its places.
REGISTER = (
    COMMON
    + """
local node = ARGV[1]
forget(node)
redis.call('ZADD', P .. 'nodes', now + ARGV[2], node)
redis.call('HSET', P .. 'slots', node, ARGV[3])
for i = 4, #ARGV, 2 do
  local place = cjson.decode(ARGV[i + 1])
  place.since = place.state == 'waiting' and redis.call('INCR', P .. 'since') or 0
  enter(node, ARGV[i], place)
end
"""
)

# ARGV: node.
LEAVE = (
    COMMON
    + """
forget(ARGV[1])
"""
)

# ARGV: node, requests that may wait in all, of one visitor, tokens per minute (-1: no limit), JSON of the
# places, then their ids. Returns "ok", "unknown" for the node, or why not with the numbers.
RESERVE = (
    COMMON
    + """
local node, max_queue, max_waiting, max_tokens = ARGV[1], ARGV[2] + 0, ARGV[3] + 0, ARGV[4] + 0
local place = cjson.decode(ARGV[5])
local visitor = place.visitor
if not redis.call('ZSCORE', P .. 'nodes', node) then return {'unknown'} end
if redis.call('HEXISTS', places(node), ARGV[6]) == 1 then return {'ok'} end
local num = #ARGV - 5

local num_beyond_slots = 0
for _, other in ipairs(redis.call('ZRANGE', P .. 'nodes', 0, -1)) do
  local num_taken = redis.call('HLEN', places(other)) + (other == node and num or 0)
  num_beyond_slots = num_beyond_slots + math.max(num_taken - redis.call('HGET', P .. 'slots', other), 0)
end
if num_beyond_slots > max_queue then return {'queue_full'} end

if max_tokens >= 0 then
  local used = used_tokens(visitor, max_tokens)
  if used >= max_tokens then return {'tokens', tostring(used)} end
end

-- How many of the visitor's requests on a node, and `num_more` ones, may start at once.
local function startable(on, num_more)
  local free, num_own, others = redis.call('HGET', P .. 'slots', on) + 0, num_more, {}
  for _, record in ipairs(redis.call('HVALS', places(on))) do
    local held = cjson.decode(record)
    if held.state == 'running' then
      free = free - 1
    elseif held.visitor == visitor then
      num_own = num_own + 1
    else
      others[held.visitor] = {num = (others[held.visitor] or {num = 0}).num + 1, limit = held.max_running}
    end
  end
  for name, other in pairs(others) do
    local may = other.num
    if other.limit >= 0 then
      may = math.min(may, math.max(other.limit - redis.call('SCARD', running(name)), 0))
    end
    free = free - may
  end
  return math.max(math.min(num_own, free), 0)
end

if max_waiting >= 0 then
  local num_running = redis.call('SCARD', running(visitor))
  local members = redis.call('ZRANGE', waiting(visitor), 0, -1)
  local num_startable, seen = startable(node, num), {[node] = true}
  for _, member in ipairs(members) do
    local other = node_of(member)
    if not seen[other] then
      seen[other] = true
      num_startable = num_startable + startable(other, 0)
    end
  end
  if place.max_running >= 0 then
    num_startable = math.min(num_startable, math.max(place.max_running - num_running, 0))
  end
  if #members + num - num_startable > max_waiting then
    return {'waiting', tostring(num_running), tostring(#members)}
  end
end

place.state, place.since = 'reserved', 0
for i = 6, #ARGV do enter(node, ARGV[i], place) end
return {'ok'}
"""
)

# ARGV: node, place, tokens, tokens per minute (-1: no limit). Returns as RESERVE does.
SUBMIT = (
    COMMON
    + """
local record = redis.call('HGET', places(ARGV[1]), ARGV[2])
if not record then return {'unknown'} end
local place, max_tokens = cjson.decode(record), ARGV[4] + 0
if place.state ~= 'reserved' then return {'ok'} end
if max_tokens >= 0 then
  local used = used_tokens(place.visitor, max_tokens)
  if used >= max_tokens then return {'tokens', tostring(used)} end
  use_tokens(place.visitor, ARGV[3], max_tokens)
end
place.state, place.since = 'waiting', redis.call('INCR', P .. 'since')
enter(ARGV[1], ARGV[2], place)
return {'ok'}
"""
)

# ARGV: node, then number of the priority and id of each place that may be next, the priorities in order.
# Lets one of the first priority run that has one that may: the one whose visitor has the lowest turn. Returns
# its id, "" for none, or "unknown".
START = (
    COMMON
    + """
local node = ARGV[1]

local function has_free_slot(on)
  local free = redis.call('HGET', P .. 'slots', on) + 0
  for _, record in ipairs(redis.call('HVALS', places(on))) do
    if cjson.decode(record).state == 'running' then free = free - 1 end
  end
  return free > 0
end

local function may_run(place)
  if place.max_running < 0 then return true end
  local num_left = place.max_running - redis.call('SCARD', running(place.visitor))
  if num_left <= 0 then return false end
  -- Older requests of the visitor come first, where they can.
  for _, member in ipairs(redis.call('ZRANGEBYSCORE', waiting(place.visitor), 1, '(' .. place.since)) do
    local other = node_of(member)
    if other ~= node and has_free_slot(other) then num_left = num_left - 1 end
  end
  return num_left > 0
end

local best
for i = 2, #ARGV, 2 do
  if best and ARGV[i] ~= best.priority then break end
  local record = redis.call('HGET', places(node), ARGV[i + 1])
  if not record then return 'unknown' end
  local place = cjson.decode(record)
  if place.state == 'running' then return ARGV[i + 1] end
  if place.state == 'waiting' and may_run(place) then
    local turn = redis.call('HGET', P .. 'turns', place.visitor) + 0
    if not best or turn < best.turn then
      best = {priority = ARGV[i], id = ARGV[i + 1], place = place, turn = turn}
    end
  end
end
if not best then return '' end

leave(node, best.id, best.place)
best.place.state = 'running'
enter(node, best.id, best.place)
local visitor = best.place.visitor
if redis.call('EXISTS', waiting(visitor)) == 1 then
  redis.call('HSET', P .. 'turns', visitor, redis.call('INCR', P .. 'turn'))
end
return best.id
"""
)

# ARGV: node, place, tokens that were used beyond those counted, tokens per minute (-1: no limit).
FREE = (
    COMMON
    + """
local record = redis.call('HGET', places(ARGV[1]), ARGV[2])
if not record then return end
local place = cjson.decode(record)
redis.call('HDEL', places(ARGV[1]), ARGV[2])
leave(ARGV[1], ARGV[2], place)
if ARGV[4] + 0 >= 0 and ARGV[3] + 0 ~= 0 then use_tokens(place.visitor, ARGV[3], ARGV[4]) end
"""
)

# Returns the waiting requests of all nodes: the JSON of each place, with `id`, `turn` and `num_running`.
WAITING = (
    COMMON
    + """
local found = {}
for _, node in ipairs(redis.call('ZRANGE', P .. 'nodes', 0, -1)) do
  local held = redis.call('HGETALL', places(node))
  for i = 1, #held, 2 do
    local place = cjson.decode(held[i + 1])
    if place.state == 'waiting' then
      place.id = held[i]
      place.turn = redis.call('HGET', P .. 'turns', place.visitor) + 0
      place.num_running = redis.call('SCARD', running(place.visitor))
      found[#found + 1] = cjson.encode(place)
    end
  end
end
return found
"""
)
