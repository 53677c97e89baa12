package topology

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/keyhaul/keyhaul/internal/redistest"
	"github.com/keyhaul/keyhaul/internal/resp"
)

func parsed(t *testing.T, url string) *Dialer {
	t.Helper()
	e, err := Parse(url)
	if err != nil {
		t.Fatal(err)
	}
	return NewDialer(e)
}

func TestServerLoginAndInspect(t *testing.T) {
	s := redistest.Start(t, redistest.Options{
		Password: "secretpassword", Users: []string{"alice on >alicepw ~* &* +@all"}, Unix: true,
	})
	s.MustDo("MSET", "a", 1, "b", 2)
	for _, url := range []string{
		"redis://:secretpassword@" + s.Addr, "redis://alice:alicepw@" + s.Addr, "unix://alice:alicepw@" + s.Socket,
	} {
		d := parsed(t, url)
		c, err := d.Open(t.Context(), d.Endpoint.Addrs[0])
		if err != nil {
			t.Fatal(err)
		}
		n, err := Inspect(t.Context(), c)
		if err != nil {
			t.Fatal(err)
		}
		if n.Product != s.Version.Family || n.Major != s.Version.Major || n.Keyspace[0] != 2 || n.Role != "master" ||
			len(n.RunID) != 40 || len(n.ReplID) != 40 || n.Cluster || n.Loading || n.TCPPort != s.Port {
			t.Errorf("%+v", n)
		}
		c.Close()
	}
	for url, code := range map[string]string{
		"redis://:wrong@" + s.Addr: "WRONGPASS", "redis://" + s.Addr: "NOAUTH",
	} {
		_, err := Connect(t.Context(), ConnectOptions{Dialer: parsed(t, url), Within: 250 * time.Millisecond})
		var reply *resp.Error
		if !errors.As(err, &reply) || reply.Code != code || strings.Contains(err.Error(), "wrong") {
			t.Errorf("%s: %v", code, err)
		}
	}
}

func TestServerTLS(t *testing.T) {
	s := redistest.Start(t, redistest.Options{TLS: true, MutualTLS: true, Password: "secretpassword"})
	d := parsed(t, "rediss://:secretpassword@"+s.Addr)
	d.Endpoint.TLS = TLSOptions{CAFile: s.TLS.CA, CertFile: s.TLS.ClientCert, KeyFile: s.TLS.ClientKey}
	conn, err := Connect(t.Context(), ConnectOptions{Dialer: d, Within: 20 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
	d.Endpoint.TLS.CertFile, d.Endpoint.TLS.KeyFile = "", ""
	_, err = Connect(t.Context(), ConnectOptions{Dialer: d, Within: 250 * time.Millisecond})
	if err == nil || !strings.Contains(err.Error(), s.Addr+" not reached") {
		t.Errorf("without a certificate: %v", err)
	}
}

// The server needs some seconds for its data: it is told to be slow, and to answer meanwhile.
func TestServerLoading(t *testing.T) {
	s := redistest.Start(t, redistest.Options{Config: map[string]string{
		"enable-debug-command": "yes", "save": "3600 1", "loading-process-events-interval-bytes": "1024",
	}})
	if !s.Version.AtLeast(7, 0) {
		t.Skip("needs DEBUG by configuration")
	}
	s.MustDo("DEBUG", "POPULATE", 15000, "key", 100)
	s.MustDo("CONFIG", "SET", "key-load-delay", 100)
	s.MustDo("SAVE")
	conn, err := parsed(t, "redis://"+s.Addr).Open(t.Context(), s.Addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	// DEBUG RELOAD loads on this connection's account while others are answered with LOADING.
	reload := make(chan error, 1)
	go func() { _, err := conn.Do(t.Context(), 30*time.Second, "DEBUG", "RELOAD", "NOSAVE"); reload <- err }()
	j := &journal{}
	seen := false
	for !seen && len(reload) == 0 {
		j.list = nil
		c, err := Connect(t.Context(), ConnectOptions{
			Dialer: parsed(t, "redis://"+s.Addr), Within: 20 * time.Second, Observe: j.add,
		})
		if err != nil {
			t.Fatal(err)
		}
		n, err := Inspect(t.Context(), c)
		if waited := strings.HasPrefix(j.list[2], "loading"); err != nil || waited && n.Loading {
			t.Errorf("handed out while loading: %v %v", n.Loading, err)
		}
		c.Close()
		seen = len(j.list) > 2 && strings.HasPrefix(j.list[2], "loading")
	}
	if err := <-reload; err != nil {
		t.Fatal(err)
	}
	if !seen || len(j.list) < 5 || j.last.State != Ready {
		t.Errorf("events: %q", j.list)
	}
}

func TestServerCluster(t *testing.T) {
	c := redistest.StartCluster(t, redistest.ClusterOptions{})
	d := parsed(t, "redis://127.0.0.1:1,"+strings.Join(c.Seeds(), ","))
	got, err := Discover(t.Context(), d, d.Endpoint.Addrs)
	if err != nil {
		t.Fatal(err)
	}
	if got.Covered() != SlotCount || len(got.Shards) != 3 || got.Seed != c.Nodes[0].Addr {
		t.Errorf("%d slots, %+v", got.Covered(), got.Shards)
	}
	for _, slot := range []int{0, 5461, 9000, SlotCount - 1} {
		if addr, _ := got.Owner(uint16(slot)); addr != c.NodeFor(slot).Addr {
			t.Errorf("slot %d: %s, want %s", slot, addr, c.NodeFor(slot).Addr)
		}
	}
}
