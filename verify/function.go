package verify

import (
	"context"
	"errors"
	"maps"
	"strings"
	"time"

	"github.com/keyhaul/keyhaul/haul"
	"github.com/keyhaul/keyhaul/internal/resp"
	"github.com/keyhaul/keyhaul/internal/topology"
)

// functions compares the libraries of functions. Those that differ must differ for a while: they have no keys, so
// whether the haul has brought them is not asked.
func (v *Verifier) functions(ctx context.Context) error {
	if v.cfg.KeysOnly || !v.source.release().Functions() {
		return nil
	}
	var last map[string]bool
	for try := range 5 {
		if err := sleep(ctx, time.Duration(min(try, 1))*v.cfg.Settle); err != nil {
			return err
		}
		differ, err := v.differentLibraries(ctx)
		if err != nil || len(differ) == 0 {
			return err
		}
		if last != nil {
			maps.DeleteFunc(last, func(name string, _ bool) bool { return !differ[name] })
			differ = last
		}
		last = differ
		if len(last) == 0 {
			return nil
		}
		if try < 2 {
			continue
		}
		break
	}
	kind := Function
	if !v.target.release().Functions() {
		if v.cfg.Unsupported {
			return nil
		}
		kind = Unsupported
	}
	for name := range last {
		if err := v.note(Difference{Key: haul.KeyName{Name: name}, Kind: kind}); err != nil {
			return err
		}
	}
	return nil
}

// differentLibraries returns the names of libraries that are not the same on all nodes.
func (v *Verifier) differentLibraries(ctx context.Context) (map[string]bool, error) {
	s, t := v.source.wires(), v.target.wires()
	defer s.close()
	defer t.close()
	differ := map[string]bool{}
	err := v.again(ctx, s, t, func() error {
		clear(differ)
		all := map[string]sum{}
		for _, addr := range s.nodes() {
			has, err := v.libraries(ctx, s, addr)
			if err != nil {
				return err
			}
			maps.Copy(all, has)
		}
		for _, addr := range t.nodes() {
			has, err := v.libraries(ctx, t, addr)
			if err != nil {
				return err
			}
			for name, code := range all {
				if has[name] != code {
					differ[name] = true
				}
			}
			for name := range has {
				if _, ok := all[name]; !ok {
					differ[name] = true
				}
			}
		}
		return nil
	})
	return differ, err
}

// libraries returns digests of a node's libraries by their names.
func (v *Verifier) libraries(ctx context.Context, w *wires, addr string) (map[string]sum, error) {
	c, err := w.to(ctx, addr)
	if err != nil {
		return nil, err
	}
	c.add("FUNCTION", "LIST", "WITHCODE")
	r, err := c.ask()
	if e := (*resp.Error)(nil); errors.As(err, &e) && topology.Missing(e) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	found, h := map[string]sum{}, newHasher(v.seeds)
	for _, library := range r.Array {
		var name, code string
		for i := 0; i+1 < len(library.Array); i += 2 {
			switch strings.ToLower(library.Array[i].Text) {
			case "library_name":
				name = library.Array[i+1].Text
			case "library_code":
				code = library.Array[i+1].Text
			}
		}
		found[name] = h.of([]byte(code))
	}
	return found, nil
}
