package verify

import (
	"context"
	"time"

	"github.com/keyhaul/keyhaul/internal/topology"
)

// positions are questions to the target about how far the haul is with some keys, and the answers.
type positions struct {
	conns   []*conn // by item
	links   []linkTrack
	known   []bool // the link of the item is
	used    map[*conn]bool
	offsets []int64 // -1: not known
}

// askPositions adds the questions for items. They are in database 0, and the first in an exchange.
func (j *judge) askPositions(ctx context.Context, items []*item) (*positions, error) {
	n := len(items)
	p := &positions{make([]*conn, n), make([]linkTrack, n), make([]bool, n), map[*conn]bool{}, make([]int64, n)}
	view := j.v.target.view()
	for i, it := range items {
		key := []byte(it.key.Name)
		c, err := j.target.at(ctx, view.owner(key), 0, p.used)
		if err != nil {
			return nil, err
		}
		p.conns[i] = c
		if p.links[i], p.known[i] = j.v.track.link(key); p.known[i] {
			p.links[i].askPosition(c, view, it.key.Name)
		}
	}
	return p, nil
}

// read sends what was asked, and reads the answers of askPositions.
func (p *positions) read(source topology.Node) error {
	for c := range p.used {
		if err := c.flush(); err != nil {
			return err
		}
	}
	for c := range p.used {
		if err := skip(c, c.selecting); err != nil {
			return err
		}
		if err := c.readBase(); err != nil {
			return err
		}
	}
	for i, c := range p.conns {
		p.offsets[i] = -1
		if !p.known[i] {
			continue
		}
		var err error
		if p.offsets[i], err = p.links[i].readPosition(c, source); err != nil {
			return err
		}
	}
	return nil
}

// wait returns when the haul has come to where the source was, when it is seen not to move on, or when it takes too long.
func (j *judge) wait(ctx context.Context, items []*item, source topology.Node, all []verdict) error {
	began, moved, pause := time.Now(), time.Now(), 2*time.Millisecond
	quick := items[0].tries < quickLooks
	var last []int64
	for {
		if err := sleep(ctx, pause); err != nil {
			return err
		}
		pause = min(2*pause, 100*time.Millisecond)
		p, err := j.askPositions(ctx, items)
		if err == nil {
			err = p.read(source)
		}
		if err != nil {
			return err
		}
		left, stand := 0, 0
		for i := range all {
			offset := p.offsets[i]
			if offset >= source.MasterReplOffset {
				continue
			}
			left++
			if last == nil || last[i] != offset {
				moved = time.Now()
			}
			if all[i].stands = j.v.track.stands(p.links[i], offset); all[i].stands {
				stand++
			}
		}
		last = p.offsets
		switch waited := time.Since(began); {
		case left == stand, quick && waited > quickWait, waited > mostWait:
			return nil
		case time.Since(moved) > patience:
			for i := range all {
				if p.offsets[i] < source.MasterReplOffset {
					j.v.track.stand(p.links[i], p.offsets[i])
					all[i].stands = true
				}
			}
			return nil
		}
	}
}

// follow reads facts of the target: once the haul is as far as the source was, if it comes there.
func (j *judge) follow(ctx context.Context, items []*item, source topology.Node, all []verdict) error {
	if err := j.readTarget(ctx, items, source, all); err != nil {
		return err
	}
	if !j.v.track.known() {
		return j.lasts(ctx, items, source, all)
	}
	if allReached(all) {
		return nil
	}
	if err := j.wait(ctx, items, source, all); err != nil {
		return err
	}
	return j.readTarget(ctx, items, source, all)
}

func allReached(all []verdict) bool {
	for i := range all {
		if !all[i].reached {
			return false
		}
	}
	return true
}

// lasts is for a target without a haul's positions: what differs must differ in the same way after a while.
func (j *judge) lasts(ctx context.Context, items []*item, source topology.Node, all []verdict) error {
	rules := j.v.rules()
	same := true
	for i := range all {
		same = same && rules.differ(&all[i].s, &all[i].t) == ""
	}
	if same {
		return nil
	}
	if err := sleep(ctx, j.v.cfg.Settle); err != nil {
		return err
	}
	before := make([]fact, len(all))
	for i := range all {
		before[i] = all[i].t
	}
	if err := j.readTarget(ctx, items, source, all); err != nil {
		return err
	}
	for i := range all {
		all[i].reached = before[i].there == all[i].t.there && before[i].d == all[i].t.d && before[i].deadline == all[i].t.deadline
	}
	return nil
}

// readTarget reads, on each node, how far the haul is and then facts.
func (j *judge) readTarget(ctx context.Context, items []*item, source topology.Node, all []verdict) error {
	at, err := j.askPositions(ctx, items)
	if err != nil {
		return err
	}
	selects := make([]int, len(items))
	for i, it := range items {
		if it.big {
			continue
		}
		selects[i] = at.conns[i].using(j.v.cfg.DBs.Of(it.key.DB))
		j.askFact(at.conns[i], it.key.Name)
	}
	if err := at.read(source); err != nil {
		return err
	}
	j.t.cut, j.t.held = j.v.cut(), j.v.track.held()
	for i, it := range items {
		all[i].reached = at.offsets[i] >= source.MasterReplOffset
		if it.big {
			continue
		}
		err := skip(at.conns[i], selects[i])
		if err == nil {
			all[i].t, err = j.readFact(at.conns[i], j.t)
		}
		if err != nil {
			return err
		}
	}
	return nil
}
