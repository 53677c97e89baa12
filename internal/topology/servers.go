package topology

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/keyhaul/keyhaul/internal/resp"
)

// askTimeout bounds the question to one of several addresses: one that hangs must not keep the others from being asked.
const askTimeout = 3 * time.Second

// Servers returns where the endpoint's server may be found now: its addresses, beginning with the one that was of use
// last, or the one that a sentinel names. Whether it is a primary is not asked: sentinels notice late.
func (d *Dialer) Servers(ctx context.Context) ([]string, error) {
	if d.Endpoint.Sentinels == nil {
		return d.inTurn(d.Endpoint.Addrs), nil
	}
	r, err := d.askSentinels(ctx, "GET-MASTER-ADDR-BY-NAME")
	if err != nil {
		return nil, err
	}
	if len(r.Array) != 2 || r.Array[0].Text == "" {
		return nil, errors.New("a sentinel has answered with no address")
	}
	return []string{net.JoinHostPort(r.Array[0].Text, r.Array[1].Text)}, nil
}

// Replicas returns the addresses of the primary's replicas that a sentinel holds for alive. A keyhaul that reads from
// the primary is none: it has no port.
func (d *Dialer) Replicas(ctx context.Context) ([]string, error) {
	r, err := d.askSentinels(ctx, "REPLICAS")
	if err != nil {
		return nil, err
	}
	var addrs []string
	for _, replica := range r.Array {
		host, port, flags := pairValue(replica.Array, "ip"), pairValue(replica.Array, "port"), pairValue(replica.Array, "flags")
		if n, err := strconv.Atoi(port); err != nil || n <= 0 || host == "" || strings.Contains(flags, "down") {
			continue
		}
		addrs = append(addrs, net.JoinHostPort(host, port))
	}
	return addrs, nil
}

// Primary returns the address of a server of the endpoint that says that it is a primary. It tries once.
func (d *Dialer) Primary(ctx context.Context) (string, error) {
	addrs, err := d.Servers(ctx)
	if err != nil {
		return "", err
	}
	var causes []error
	for _, addr := range addrs {
		if err := d.primaryAt(ctx, addr); err != nil {
			causes = append(causes, err)
			continue
		}
		d.prefer(addr)
		return addr, nil
	}
	d.doubt()
	if len(causes) == 1 {
		return "", causes[0]
	}
	return "", fmt.Errorf("no address leads to a primary: %w", joined(causes))
}

func (d *Dialer) primaryAt(ctx context.Context, addr string) error {
	if d.Endpoint.Several() {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, askTimeout, fmt.Errorf("no answer within %v", askTimeout))
		defer cancel()
	}
	c, err := d.Open(ctx, addr)
	if err != nil {
		return err
	}
	defer c.Close() //nolint:errcheck // one question
	return isPrimary(ctx, c, addr)
}

// isPrimary asks the server behind c, and believes one that does not let its user ask.
func isPrimary(ctx context.Context, c *resp.Conn, addr string) error {
	node, err := Inspect(ctx, c)
	if err != nil && !errors.As(err, new(*resp.Error)) {
		return err
	}
	if node.Role == "slave" {
		return &Error{addr, "INFO", ErrReplica(node)}
	}
	return nil
}

// ErrReplica says whose replica a node is that should be a primary.
func ErrReplica(n Node) error {
	return fmt.Errorf("it is a replica of %s:%d now", n.MasterHost, n.MasterPort)
}

// askSentinels asks them in turn about the primary until one knows it.
func (d *Dialer) askSentinels(ctx context.Context, about string) (resp.Reply, error) {
	to := &Dialer{Endpoint: *d.Endpoint.Sentinels, Network: d.Network}
	var causes []error
	for _, addr := range d.inTurn(to.Endpoint.Addrs) {
		r, err := to.askSentinel(ctx, addr, about, d.Endpoint.Primary)
		if err == nil {
			d.prefer(addr)
			return r, nil
		}
		if causes = append(causes, err); ctx.Err() != nil {
			break
		}
	}
	return resp.Reply{}, fmt.Errorf("no sentinel tells about %q: %w", d.Endpoint.Primary, joined(causes))
}

func (d *Dialer) askSentinel(ctx context.Context, addr, about, name string) (resp.Reply, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, askTimeout, fmt.Errorf("no answer within %v", askTimeout))
	defer cancel()
	c, err := d.Open(ctx, addr)
	if err != nil {
		return resp.Reply{}, sentinelAdvice(err)
	}
	defer c.Close() //nolint:errcheck // one question
	r, err := c.Do(ctx, askTimeout, "SENTINEL", about, name)
	if e := (*resp.Error)(nil); errors.As(err, &e) && strings.Contains(e.Text, "No such master") || err == nil && r.Null {
		return r, &Error{addr, "SENTINEL", errors.New("it knows no primary of this name")}
	}
	if err != nil {
		return r, sentinelAdvice(failed(addr, "SENTINEL", err))
	}
	return r, nil
}

// sentinelAdvice tells the login of sentinels from that of the servers.
func sentinelAdvice(err error) error {
	if e := (*resp.Error)(nil); errors.As(err, &e) && (e.Code == "NOAUTH" || e.Code == "WRONGPASS") {
		return fmt.Errorf("%w (sentinels have a user and password of their own)", err)
	}
	return err
}

// inTurn returns addrs beginning with the one that is to be tried first.
func (d *Dialer) inTurn(addrs []string) []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	i := max(slices.Index(addrs, d.first), 0)
	return slices.Concat(addrs[i:], addrs[:i])
}

// prefer makes an address the first to be tried.
func (d *Dialer) prefer(addr string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.Endpoint.Sentinels == nil || slices.Contains(d.Endpoint.Sentinels.Addrs, addr) {
		d.first = addr
	}
}

// doubt has another sentinel asked first: the one that was believed last names a server that is of no use.
func (d *Dialer) doubt() {
	if d.Endpoint.Sentinels == nil {
		return
	}
	next := append(d.inTurn(d.Endpoint.Sentinels.Addrs)[1:], d.Endpoint.Sentinels.Addrs...)
	d.prefer(next[0])
}
