package writer

import (
	"math"
	"strconv"

	"github.com/keyhaul/keyhaul/internal/command"
)

// What a target before 6.2 cannot do with one command of its own it does with a script, which is as indivisible.
const (
	scriptKeepTTL = `local t=redis.call('PTTL',KEYS[1]) redis.call('SET',KEYS[1],ARGV[1]) if t>=0 then redis.call('PEXPIRE',KEYS[1],t) end`

	scriptTrim = `local n=#redis.call('XRANGE',KEYS[1],'-',ARGV[1]) ` +
		`if n>0 then redis.call('XTRIM',KEYS[1],'MAXLEN',redis.call('XLEN',KEYS[1])-n) end`

	scriptMove = `local v=redis.call(ARGV[1]=='LEFT' and 'LPOP' or 'RPOP',KEYS[1]) ` +
		`if v then redis.call(ARGV[2]=='LEFT' and 'LPUSH' or 'RPUSH',KEYS[2],v) end`

	scriptCopy = `local v=redis.call('DUMP',KEYS[1]) if not v then return end local t=redis.call('PTTL',KEYS[1]) ` +
		`if ARGV[1] then redis.call('SELECT',ARGV[1]) end ` +
		`redis.call('RESTORE',KEYS[2],t==-1 and 0 or math.max(t,1),v,'REPLACE')`

	scriptScores = `local up=ARGV[1]=='GT' for i=3,#ARGV,2 do local s=redis.call('ZSCORE',KEYS[1],ARGV[i+1]) ` +
		`local n=tonumber(ARGV[i]) if s and (up and n>tonumber(s) or not up and n<tonumber(s)) or not s and ARGV[2]~='XX' then ` +
		`redis.call('ZADD',KEYS[1],ARGV[i],ARGV[i+1]) end end`

	scriptRange = `local s={} local r=redis.call(ARGV[1],KEYS[2],unpack(ARGV,2)) ` +
		`for i,m in ipairs(r) do s[i]=redis.call('ZSCORE',KEYS[2],m) end redis.call('DEL',KEYS[1]) ` +
		`for i,m in ipairs(r) do redis.call('ZADD',KEYS[1],s[i],m) end`

	scriptDiff = `local function set(k) return redis.call('TYPE',k).ok=='set' end ` +
		`local function has(k,m) if set(k) then return redis.call('SISMEMBER',k,m)==1 end return redis.call('ZSCORE',k,m) end ` +
		`local r,s,k={},{},KEYS[2] for _,m in ipairs(redis.call(set(k) and 'SMEMBERS' or 'ZRANGE',k,unpack(set(k) and {} or {0,-1}))) do ` +
		`local o=true for i=3,#KEYS do o=o and not has(KEYS[i],m) end ` +
		`if o then r[#r+1]=m s[#r]=set(k) and 1 or redis.call('ZSCORE',k,m) end end ` +
		`redis.call('DEL',KEYS[1]) for i,m in ipairs(r) do redis.call('ZADD',KEYS[1],s[i],m) end`
)

// script begins an EVAL of keys and what else is arguments of the command in hand.
func (r *rewriter) script(code string, keys, args []int) {
	m := &r.made
	m.command("EVAL")
	m.word(code)
	m.number(int64(len(keys)))
	for _, i := range keys {
		m.args(i, i+1)
	}
	for _, i := range args {
		m.args(i, i+1)
	}
}

// pop is about LPOP and RPOP with a count.
func (r *rewriter) pop() outcome {
	if r.n != 3 {
		return passes
	}
	n, err := strconv.ParseInt(string(r.get(2)), 10, 64)
	if err != nil || n < 1 || n == math.MaxInt64 {
		return passes
	}
	m := &r.made
	m.command("LTRIM")
	m.args(1, 2)
	if r.cmd.Spec.Name == "LPOP" {
		m.number(n)
		m.number(-1)
	} else {
		m.number(0)
		m.number(-n - 1)
	}
	return anew
}

// move is about LMOVE source destination LEFT|RIGHT LEFT|RIGHT.
func (r *rewriter) move() outcome {
	if r.n != 5 {
		return passes
	}
	if r.is(3, "RIGHT") && r.is(4, "LEFT") {
		r.made.command("RPOPLPUSH")
		r.made.args(1, 3)
		return anew
	}
	r.script(scriptMove, []int{1, 2}, nil)
	for i := 3; i < 5; i++ {
		if r.is(i, "LEFT") {
			r.made.word("LEFT")
		} else {
			r.made.word("RIGHT")
		}
	}
	return anew
}

// copy is about COPY source destination [DB n] [REPLACE].
func (r *rewriter) copy() outcome {
	if r.n < 3 {
		return passes
	}
	r.script(scriptCopy, []int{1, 2}, nil)
	if i := r.cmd.Spec.OtherDB(r.n, r.get); i > 0 {
		db, ok := command.ParseDB(r.get(i))
		if !ok {
			return passes
		}
		r.made.number(int64(r.d.cfg.DBs.Of(db)))
	}
	return anew
}

// flush is about FLUSHALL, FLUSHDB and SCRIPT FLUSH, which had no word for "at once" (and SCRIPT FLUSH none at all).
func (r *rewriter) flush() outcome {
	last := r.n - 1
	script := r.cmd.Spec.Name == "SCRIPT"
	if script && !(r.n == 3 && r.is(1, "FLUSH")) || !script && !(r.n == 2 && r.is(1, "SYNC")) {
		return passes
	}
	r.made.command(r.cmd.Spec.Name)
	r.made.args(1, last)
	return anew
}

// zadd is about ZADD key [NX|XX] [GT|LT] [CH] [INCR] score member …
func (r *rewriter) zadd() outcome {
	than, only, incr := "", false, false
	i := 2
	for ; i < r.n; i++ {
		switch {
		case r.is(i, "GT"):
			than = "GT"
		case r.is(i, "LT"):
			than = "LT"
		case r.is(i, "XX"):
			only = true
		case r.is(i, "INCR"):
			incr = true
		case r.is(i, "NX", "CH"):
		default:
			return r.zaddThan(i, than, only, incr)
		}
	}
	return passes
}

// zaddThan is about a ZADD whose first score stands at i. Of one member the condition has held at the source.
func (r *rewriter) zaddThan(i int, than string, only, incr bool) outcome {
	m := &r.made
	switch {
	case than == "":
		return passes
	case incr:
		m.command("ZINCRBY")
		m.args(1, 2)
		m.args(i, r.n)
	case r.n-i == 2:
		m.command("ZADD")
		m.args(1, 2)
		m.args(i, r.n)
	default:
		r.script(scriptScores, []int{1}, nil)
		m.word(than)
		if only {
			m.word("XX")
		} else {
			m.word("")
		}
		m.args(i, r.n)
	}
	return anew
}

// rangeStore is about ZRANGESTORE destination source min max [BYSCORE|BYLEX] [REV] [LIMIT offset count].
func (r *rewriter) rangeStore() outcome {
	by, reverse, limit := "", "", 0
	for i := 5; i < r.n; i++ {
		switch {
		case r.is(i, "BYSCORE"):
			by = "BYSCORE"
		case r.is(i, "BYLEX"):
			by = "BYLEX"
		case r.is(i, "REV"):
			reverse = "REV"
		case r.is(i, "LIMIT") && i+2 < r.n:
			limit = i
			i += 2
		default:
			return passes
		}
	}
	if r.n < 5 {
		return passes
	}
	r.script(scriptRange, []int{1, 2}, nil)
	r.made.word("Z" + reverse + "RANGE" + by)
	r.made.args(3, 5)
	if limit > 0 {
		r.made.args(limit, limit+3)
	}
	return anew
}

// diffStore is about ZDIFFSTORE destination n key …
func (r *rewriter) diffStore() outcome {
	keys := []int{1}
	for i := 3; i < r.n; i++ {
		keys = append(keys, i)
	}
	r.script(scriptDiff, keys, nil)
	return anew
}

// geoStore is about GEOSEARCHSTORE destination source FROMMEMBER m|FROMLONLAT x y BYRADIUS r unit [ASC|DESC] [COUNT n]
// [STOREDIST], in any order behind the keys, which is a GEORADIUS.
func (r *rewriter) geoStore() outcome {
	from, places, by, count, order, store := 0, 1, 0, 0, "", "STORE"
	for i := 3; i < r.n; i++ {
		switch {
		case r.is(i, "FROMMEMBER") && i+1 < r.n:
			from, places = i+1, 1
			i++
		case r.is(i, "FROMLONLAT") && i+2 < r.n:
			from, places = i+1, 2
			i += 2
		case r.is(i, "BYRADIUS") && i+2 < r.n:
			by = i + 1
			i += 2
		case r.is(i, "ASC"):
			order = "ASC"
		case r.is(i, "DESC"):
			order = "DESC"
		case r.is(i, "COUNT") && i+1 < r.n && !r.is(i+2, "ANY"):
			count = i + 1
			i++
		case r.is(i, "STOREDIST"):
			store = "STOREDIST"
		default:
			return r.lacks(lacksSearches)
		}
	}
	if from == 0 || by == 0 {
		return passes
	}
	m := &r.made
	if places == 1 {
		m.command("GEORADIUSBYMEMBER")
	} else {
		m.command("GEORADIUS")
	}
	m.args(2, 3)
	m.args(from, from+places)
	m.args(by, by+2)
	if order != "" {
		m.word(order)
	}
	if count > 0 {
		m.word("COUNT")
		m.args(count, count+1)
	}
	m.word(store)
	m.args(1, 2)
	return anew
}

// radius is about GEORADIUS and GEORADIUSBYMEMBER with STORE, of which the source sends no others.
func (r *rewriter) radius() outcome {
	for i := 5; i+2 < r.n; i++ {
		switch {
		case r.is(i, "STORE", "STOREDIST"):
			i++
		case r.is(i, "COUNT") && r.is(i+2, "ANY"):
			return r.lacks(lacksSearches)
		}
	}
	return passes
}

// publish is about SPUBLISH: nobody can have subscribed to the shard's channel, but to one of that name.
func (r *rewriter) publish() outcome {
	r.made.command("PUBLISH")
	r.made.args(1, r.n)
	return anew
}
