package verify

import (
	"context"

	"github.com/keyhaul/keyhaul/haul"
)

// lookup looks for keys of one node of the target that the source lacks.
func (l *looker) lookup(ctx context.Context, c chunk) error {
	l.lacking = append(l.lacking[:0], c.keys...)
	from := l.v.sourcesOf(c.unit.db)
	for _, db := range from {
		if err := l.missing(ctx, db); err != nil {
			return err
		}
	}
	for _, key := range l.lacking {
		if len(from) == 0 {
			break // no database of the source goes there
		}
		it := &item{key: haul.KeyName{DB: from[0], Name: string(key)}}
		if err := l.v.suspect(ctx, c.step, it); err != nil {
			return err
		}
	}
	l.v.count.target.Add(int64(len(c.keys)))
	return nil
}

// missing keeps of l.lacking what a database of the source lacks.
func (l *looker) missing(ctx context.Context, db int32) error {
	view := l.v.source.view()
	if view.topo == nil && len(l.lacking) > 0 {
		src, err := l.source.to(ctx, view.primary)
		if err != nil {
			return err
		}
		selecting := src.using(db)
		src.addKeys(l.lacking, "EXISTS")
		if err := skip(src, selecting); err != nil {
			return err
		}
		n, err := src.ask()
		if err != nil {
			return err
		}
		if int(n.Int) == len(l.lacking) {
			l.lacking = l.lacking[:0]
			return nil
		}
	}
	used := map[*conn]bool{}
	l.asked = l.asked[:0]
	for _, key := range l.lacking {
		src, err := l.source.at(ctx, view.owner(key), db, used)
		if err != nil {
			return err
		}
		src.addKey("EXISTS", key)
		l.asked = append(l.asked, src)
	}
	for src := range used {
		if err := src.flush(); err != nil {
			return err
		}
	}
	for src := range used {
		if err := skip(src, src.selecting); err != nil {
			return err
		}
		if err := src.readBase(); err != nil {
			return err
		}
	}
	left := l.lacking[:0]
	for i, key := range l.lacking {
		raw, err := l.asked[i].next()
		if err != nil {
			return err
		}
		if e := refused(raw); e != nil && !passing(e) {
			return op(l.asked[i], "EXISTS", e)
		}
		if integer(raw) == 0 {
			left = append(left, key)
		}
	}
	l.lacking = left
	return nil
}

// sourcesOf returns the databases of the source that go to one of the target.
func (v *Verifier) sourcesOf(db int32) []int32 {
	var from []int32
	for s := range int32(usualDatabases) {
		if v.cfg.DBs.Of(s) == db {
			from = append(from, s)
		}
	}
	for _, s := range v.sourceDBs {
		if s >= usualDatabases && v.cfg.DBs.Of(s) == db {
			from = append(from, s)
		}
	}
	return from
}

// usualDatabases is how many a server has by default. Others of the source are looked at only if they hold keys.
const usualDatabases = 16
