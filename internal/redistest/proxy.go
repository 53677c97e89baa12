package redistest

import (
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// Direction is one of the two ways through a Proxy.
type Direction int

// The directions of a Proxy.
const (
	ToTarget Direction = iota
	ToClient
)

// Proxy forwards TCP connections on loopback to a target, and breaks them on demand. Its methods may be called from
// any goroutine.
type Proxy struct {
	listener net.Listener
	wg       sync.WaitGroup // of every goroutine of the proxy
	accepted atomic.Int64
	bytes    [2]atomic.Int64

	mu      sync.Mutex // guards the following
	target  string
	conns   map[*proxied]struct{}
	closed  bool
	refuse  bool
	stalled bool
	drop    bool          // blackhole
	rate    int           // bytes a second, 0 is unlimited
	cutIn   [2]int64      // bytes until a cut, -1 is none
	changed chan struct{} // closed and replaced when stalled or rate change
}

// proxied is one connection through the proxy.
type proxied struct {
	ends [2]net.Conn // where the bytes of a direction go: the target, the client
	gone chan struct{}
	once sync.Once

	holding  atomic.Bool   // what the client sends is kept back until delivery
	orphaned atomic.Bool   // the client is gone, what the target answers is lost
	delivery chan struct{} // closed when what was kept back is to be sent
}

func (c *proxied) cut() {
	c.once.Do(func() {
		close(c.gone)
		_ = c.ends[ToTarget].Close()
		_ = c.ends[ToClient].Close()
	})
}

// sleep waits, shorter if the connection ends.
func (c *proxied) sleep(d time.Duration) {
	select {
	case <-time.After(d):
	case <-c.gone:
	}
}

// NewProxy starts a proxy to target, host:port, that is closed when the test ends.
func NewProxy(t TB, target string) *Proxy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatalf("redistest: proxy to %s: %v", target, err)
	}
	p := &Proxy{
		listener: l, target: target, conns: make(map[*proxied]struct{}), cutIn: [2]int64{-1, -1},
		changed: make(chan struct{}),
	}
	p.wg.Go(p.accept)
	t.Cleanup(p.Close)
	return p
}

// Addr is where clients connect to.
func (p *Proxy) Addr() string { return p.listener.Addr().String() }

// Accepted counts the connections that clients have opened, refused ones included.
func (p *Proxy) Accepted() int64 { return p.accepted.Load() }

// Bytes counts what was forwarded in a direction.
func (p *Proxy) Bytes(dir Direction) int64 { return p.bytes[dir].Load() }

// Connections counts the open connections.
func (p *Proxy) Connections() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.conns)
}

// Retarget sends new connections elsewhere.
func (p *Proxy) Retarget(target string) { p.set(func() { p.target = target }) }

// Refuse makes the proxy close new connections as soon as they are accepted. Those that are open stay so.
func (p *Proxy) Refuse(on bool) { p.set(func() { p.refuse = on }) }

// Stall stops forwarding: nothing is read, so that senders run into full buffers, and nothing is closed.
func (p *Proxy) Stall() { p.set(func() { p.stalled = true }) }

// Resume ends Stall and Blackhole.
func (p *Proxy) Resume() { p.set(func() { p.stalled, p.drop = false, false }) }

// Blackhole takes what senders send and loses it. The bytes are gone for good: cut the connections before Resume.
func (p *Proxy) Blackhole() { p.set(func() { p.drop = true }) }

// Limit forwards at most so many bytes a second in each direction of each connection; 0 is no limit.
func (p *Proxy) Limit(bytesPerSecond int) { p.set(func() { p.rate = bytesPerSecond }) }

// CutAfter closes, once, the connection that carries the n-th byte from now on in a direction, behind that byte.
func (p *Proxy) CutAfter(n int, dir Direction) { p.set(func() { p.cutIn[dir] = int64(max(n, 1)) }) }

// Cut closes all current connections.
func (p *Proxy) Cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.conns {
		c.cut()
	}
}

// Orphan hangs up on the clients of all current connections, but delivers what they have sent after delay, as a network
// or a busy server does: commands of a connection that its client has closed are executed all the same.
func (p *Proxy) Orphan(delay time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.conns {
		if c.holding.Swap(true) {
			continue
		}
		p.wg.Go(func() {
			c.sleep(delay / 4) // so that something is kept back
			c.orphaned.Store(true)
			if half, ok := c.ends[ToClient].(*net.TCPConn); ok {
				_ = half.CloseWrite()
			}
			c.sleep(delay)
			close(c.delivery)
		})
	}
}

// Close closes everything and waits until it is gone.
func (p *Proxy) Close() {
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	_ = p.listener.Close()
	p.Cut()
	p.wg.Wait()
}

func (p *Proxy) set(change func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	change()
	close(p.changed)
	p.changed = make(chan struct{})
}

func (p *Proxy) accept() {
	for {
		client, err := p.listener.Accept()
		if err != nil { // closed
			return
		}
		p.accepted.Add(1)
		p.mu.Lock()
		target, refuse := p.target, p.refuse || p.closed
		p.mu.Unlock()
		if refuse {
			_ = client.Close()
			continue
		}
		p.wg.Go(func() { p.serve(client, target) })
	}
}

// serve forwards one connection until both of its directions have ended.
func (p *Proxy) serve(client net.Conn, target string) {
	server, err := net.DialTimeout("tcp", target, 10*time.Second)
	if err != nil {
		_ = client.Close()
		return
	}
	c := &proxied{ends: [2]net.Conn{ToTarget: server, ToClient: client}, gone: make(chan struct{}), delivery: make(chan struct{})}
	defer c.cut()
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		return
	}
	p.conns[c] = struct{}{}
	p.mu.Unlock()
	defer func() {
		p.mu.Lock()
		delete(p.conns, c)
		p.mu.Unlock()
	}()
	var pumps sync.WaitGroup
	pumps.Go(func() { p.pump(c, ToTarget) })
	pumps.Go(func() { p.pump(c, ToClient) })
	pumps.Wait()
}

// pump forwards one direction. The end of its sender's stream is passed on, any error ends the connection.
func (p *Proxy) pump(c *proxied, dir Direction) {
	from, to := c.ends[1-dir], c.ends[dir]
	buf := make([]byte, 16<<10)
	var held []byte
	for {
		rate, ok := p.mayRead(c)
		if !ok {
			return
		}
		size := len(buf)
		if rate > 0 {
			size = min(size, max(1, rate/50))
		}
		n, err := from.Read(buf[:size])
		switch {
		case dir == ToTarget && c.holding.Load():
			held = append(held, buf[:n]...)
		case n > 0 && !p.forward(c, dir, to, buf[:n]):
			c.cut()
			return
		}
		if err != nil {
			if len(held) > 0 {
				p.deliver(c, to, held)
			}
			if half, ok := to.(*net.TCPConn); !ok || half.CloseWrite() != nil {
				c.cut()
			}
			return
		}
		if rate > 0 {
			p.pause(c, time.Duration(n)*time.Second/time.Duration(rate))
		}
	}
}

// deliver writes what an orphan has left behind.
func (p *Proxy) deliver(c *proxied, to net.Conn, b []byte) {
	select {
	case <-c.delivery:
		_ = p.write(to, ToTarget, b)
	case <-c.gone:
	}
}

// mayRead waits while the proxy is stalled. It returns false when the connection is gone.
func (p *Proxy) mayRead(c *proxied) (rate int, ok bool) {
	for {
		p.mu.Lock()
		stalled, rate, changed := p.stalled, p.rate, p.changed
		p.mu.Unlock()
		if !stalled {
			return rate, true
		}
		select {
		case <-changed:
		case <-c.gone:
			return 0, false
		}
	}
}

// pause waits, shorter if the connection ends or the settings change.
func (p *Proxy) pause(c *proxied, d time.Duration) {
	p.mu.Lock()
	changed := p.changed
	p.mu.Unlock()
	select {
	case <-time.After(d):
	case <-changed:
	case <-c.gone:
	}
}

// forward writes what was read, unless a fault was asked for meanwhile. It returns false when the connection is to end.
func (p *Proxy) forward(c *proxied, dir Direction, to net.Conn, b []byte) bool {
	if _, ok := p.mayRead(c); !ok { // stalled while it waited for these bytes
		return false
	}
	p.mu.Lock()
	drop, last := p.drop, false
	if left := p.cutIn[dir]; !drop && left >= 0 {
		b = b[:min(int64(len(b)), left)]
		last = left == int64(len(b))
		p.cutIn[dir] = left - int64(len(b))
		if last {
			p.cutIn[dir] = -1
		}
	}
	p.mu.Unlock()
	if drop || dir == ToClient && c.orphaned.Load() {
		return true
	}
	return p.write(to, dir, b) == nil && !last
}

// write counts b before it is written, so that who has received it finds it counted.
func (p *Proxy) write(to net.Conn, dir Direction, b []byte) error {
	p.bytes[dir].Add(int64(len(b)))
	n, err := to.Write(b)
	p.bytes[dir].Add(int64(n - len(b)))
	return err
}
