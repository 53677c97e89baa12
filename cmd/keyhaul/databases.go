package main

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/keyhaul/keyhaul/haul"
)

// databases reads from=to pairs of databases.
func (r *resolver) databases(key string) haul.DBMap {
	if len(r.values[key].texts) == 0 {
		return nil
	}
	m := haul.DBMap{}
	for _, pair := range r.values[key].texts {
		from, to, err := databasePair(strings.TrimSpace(pair))
		if _, twice := m[from]; err == nil && twice {
			err = fmt.Errorf("database %d is named twice", from)
		}
		if err != nil {
			r.refuse(key, fmt.Sprintf("%q: %v", pair, err))
			continue
		}
		m[from] = to
	}
	return m
}

func databasePair(pair string) (from, to int32, err error) {
	left, right, _ := strings.Cut(pair, "=")
	from, err = database(left)
	if strings.EqualFold(strings.TrimSpace(right), "drop") {
		return from, haul.DropDB, err
	}
	to, err2 := database(right)
	return from, to, errors.Join(err, err2)
}

func database(text string) (int32, error) {
	n, err := strconv.ParseInt(strings.TrimSpace(text), 10, 32)
	if err != nil || n < 0 {
		return 0, errors.New("write from=to with numbers of databases, such as 1=0, or 1=drop")
	}
	return int32(n), nil
}

// mapped says in the plan where databases go, and warns of those that are put together.
func mapped(m haul.DBMap) []string {
	if len(m) == 0 {
		return nil
	}
	var moves, together []string
	for _, from := range slices.Sorted(maps.Keys(m)) {
		to := strconv.Itoa(int(m[from]))
		if m[from] == haul.DropDB {
			to = "nowhere"
		} else if !m.Alone(from) {
			together = append(together, to)
		}
		moves = append(moves, fmt.Sprintf("%d to %s", from, to))
	}
	lines := []string{"databases  " + strings.Join(moves, ", ") + "; the others keep their numbers"}
	if len(together) > 0 {
		slices.Sort(together)
		lines = append(lines, fmt.Sprintf("warning: several databases of the source go to database %s of the target: of keys with the same name only one remains, "+
			"and a FLUSHDB or SWAPDB of such a database is refused (--on-error)", strings.Join(slices.Compact(together), ", ")))
	}
	return lines
}
