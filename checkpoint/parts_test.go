package checkpoint

import (
	"testing"

	"github.com/keyhaul/keyhaul/internal/redistest"
)

// TestPartsAreRemoved: the end of a haul removes what is left of large values, also of those whose slot was on its way.
func TestPartsAreRemoved(t *testing.T) {
	c, s := cluster(t, redistest.ClusterOptions{})
	keys := s.Keys()
	for _, end := range []func() error{
		func() error { return s.Finish(testContext(t), nil, nil) },
		func() error { _, err := s.Cleanup(testContext(t)); return err },
	} {
		must(t, s.Save(testContext(t), streaming))
		for _, slot := range []uint16{0, 5000, 16383} {
			for _, key := range []string{keys.Part(slot), keys.MovingPart(slot)} {
				c.MustDo(key, "RPUSH", key, "a", "b")
			}
		}
		must(t, end())
		for _, n := range c.Nodes {
			for _, k := range n.MustDo("KEYS", "keyhaul:*part*").Array {
				t.Errorf("%s is left", k.Text)
			}
		}
	}
}
