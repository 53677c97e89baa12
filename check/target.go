package check

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/keyhaul/keyhaul/checkpoint"
	"github.com/keyhaul/keyhaul/internal/resp"
	"github.com/keyhaul/keyhaul/internal/topology"
)

// tryTarget tries on a server of the target what keyhaul will do there. Nothing is changed by it.
func (p *Pair) tryTarget(ctx context.Context, s *server) error {
	c, err := p.target.dialer.Open(ctx, s.addr)
	if err != nil {
		return err
	}
	defer c.Close() //nolint:errcheck // only asked
	needs := p.targetNeeds(s)
	if err := s.tryNeeds(ctx, c, needs); err != nil {
		return err
	}
	denied := s.tryDry(ctx, c, s.key(p.cfg.Name))
	s.judgeNeeds(p.target.dialer.Endpoint.Username, "target", needs, denied, p.cfg.Flush)
	if err := p.tryClients(ctx, c, s); err != nil {
		return err
	}
	if p.cfg.WaitReplicas > 0 {
		if s.noWait, err = refusedOf(c.Do(ctx, questionTimeout, "WAIT", "0", "1")); err != nil {
			return err
		}
	}
	if highest := p.highest(); highest > 0 {
		if s.noDatabase, err = refusedOf(c.Do(ctx, questionTimeout, "SELECT", strconv.Itoa(highest))); err != nil {
			return err
		}
	}
	if p.source != nil && len(p.source.servers) > 0 {
		known, others := p.used()
		if err := s.lackKnown(ctx, c, p, known); err != nil {
			return err
		}
		s.lackOthers(ctx, c, p, others)
	}
	if !p.target.cluster { // last: it may leave a transaction behind
		s.noTransactions, err = tryTransaction(ctx, c, s.addr)
	}
	return err
}

// trySource tries on a server of the source what keyhaul will ask there.
func (p *Pair) trySource(ctx context.Context, s *server) error {
	c, err := p.source.dialer.Open(ctx, s.addr)
	if err != nil {
		return err
	}
	defer c.Close() //nolint:errcheck // only asked
	needs := p.sourceNeeds(s)
	if err := s.tryNeeds(ctx, c, needs); err != nil {
		return err
	}
	s.judgeNeeds(p.source.dialer.Endpoint.Username, "source", needs, nil, false)
	return p.sampleTypes(ctx, c, s)
}

// refusedOf tells a refusal from an error of the connection.
func refusedOf(_ resp.Reply, err error) (refused, failed error) {
	if errors.As(err, new(*resp.Error)) {
		return err, nil
	}
	return nil, err
}

// tryTransaction tries a transaction over two keys in two slots, which reads nothing but keyhaul's own. It returns the
// refusal of a target that does not have this: a proxy, or a node of a cluster. Others will do for now.
func tryTransaction(ctx context.Context, c *resp.Conn, addr string) (refused, failed error) {
	for _, call := range [][]string{
		{"WATCH", checkpoint.Prefix + "{a}"},
		{"MULTI"},
		{"EXISTS", checkpoint.Prefix + "{a}"},
		{"EXISTS", checkpoint.Prefix + "{b}"},
		{"EXEC"},
	} {
		e, failed := refusedOf(c.Do(ctx, questionTimeout, call...))
		switch {
		case failed != nil:
			return nil, failed
		case e != nil && (forGood(e, "CROSSSLOT", "EXECABORT") || codeOf(e) == "MOVED"):
			return &topology.Error{Addr: addr, Op: call[0], Err: e}, nil
		case e != nil:
			return nil, nil
		}
	}
	return nil, nil
}

// tryClients makes sure that connections of our own can be ended: what a closed one has sent may otherwise be executed
// after it was found not to be.
func (p *Pair) tryClients(ctx context.Context, c *resp.Conn, s *server) error {
	if !p.cfg.ExactlyOnce {
		return nil
	}
	for _, call := range [][]string{
		{"CLIENT", "SETNAME", p.target.dialer.ClientName},
		{"CLIENT", "ID"},
		{"CLIENT", "LIST"},
		{"CLIENT", "KILL", "ID", nobody},
	} {
		r, err := c.Do(ctx, questionTimeout, call...)
		e, failed := refusedOf(r, err)
		if failed != nil {
			return failed
		}
		s.running = s.running || strings.Contains(r.Text, " name="+checkpoint.Prefix+p.cfg.Name+":") // and its worker
		if e == nil || s.noClientList != nil {
			continue
		}
		if refused := (*resp.Error)(nil); errors.As(e, &refused) && refused.Code == "NOPERM" || forGood(e) {
			s.noClientList = &clientError{call[1], e}
		}
	}
	return nil
}

// clientError is the refusal of a CLIENT command.
type clientError struct {
	sub string
	err error
}

func (e *clientError) Error() string { return fmt.Sprintf("CLIENT %s: %v", e.sub, e.err) }
func (e *clientError) Unwrap() error { return e.err }

// forGood tells whether a refusal is none that time will mend.
func forGood(err error, codes ...string) bool {
	e := (*resp.Error)(nil)
	if !errors.As(err, &e) {
		return false
	}
	switch e.Code {
	case "LOADING", "BUSY", "MISCONF", "MASTERDOWN", "NOAUTH", "WRONGPASS", "NOPERM", "OOM", "READONLY", "CLUSTERDOWN", "MOVED":
		return false
	}
	return e.Code == "ERR" || slices.Contains(codes, e.Code) || topology.Missing(e)
}

// NoTransactions says why the target, which is no cluster, takes no transaction over several keys; nil if it does.
func (p *Pair) NoTransactions() error {
	if p.target == nil || p.target.cluster || len(p.target.servers) == 0 {
		return nil
	}
	return p.target.servers[0].noTransactions
}

// Reached tells whether the target answers.
func (p *Pair) Reached() bool { return p.target != nil && len(p.target.servers) > 0 }

// Cluster tells whether the target is a cluster.
func (p *Pair) Cluster() bool { return p.target != nil && p.target.cluster }
