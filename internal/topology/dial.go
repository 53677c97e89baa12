package topology

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/keyhaul/keyhaul/internal/resp"
)

const (
	tcpKeepAlive        = 30 * time.Second
	loginTimeout        = 10 * time.Second // of one question while a connection is made
	defaultReplyTimeout = 60 * time.Second
)

// Dialer opens connections to the servers of one endpoint, seeds and announced addresses alike. Names are resolved,
// and certificates and password files read, at every dial. Its methods may run at once.
type Dialer struct {
	Endpoint Endpoint

	// ClientName is the name that lanes give their connections.
	ClientName string

	// Network opens the connection below TLS; nil means a net.Dialer. Tests set it.
	Network func(ctx context.Context, network, addr string) (net.Conn, error)

	mu    sync.Mutex // guards the following
	first string     // the address that is tried first: of a server, or of a sentinel where those are asked
}

// NewDialer returns a Dialer for the servers of e.
func NewDialer(e Endpoint) *Dialer { return &Dialer{Endpoint: e} }

// Error is a failure to connect to a server or to ask it something. It never holds a secret.
type Error struct {
	Addr string // as announced or configured, not as mapped
	Op   string // what was being done: "dial", "TLS handshake", "AUTH", or a command's name
	Err  error
}

func (e *Error) Error() string { return e.Addr + ": " + e.brief() }

func (e *Error) Unwrap() error { return e.Err }

// brief is the text without the address.
func (e *Error) brief() string { return e.Op + ": " + plain(e.Err) }

// plain leaves out what the network stack adds before the cause: the addresses once more, and local ports.
func plain(err error) string {
	var op *net.OpError
	switch {
	case errors.As(err, &op) && op.Err != nil:
		return op.Err.Error()
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return "the server closed the connection"
	}
	return err.Error()
}

// failed wraps an error of resp.Conn.Do, which names the command already.
func failed(addr, op string, err error) error {
	if errors.As(err, new(*resp.Error)) {
		return &Error{addr, op, err}
	}
	if inner := errors.Unwrap(err); inner != nil {
		err = inner
	}
	return &Error{addr, op, err}
}

// Resolve returns where addr is reached: through the endpoint's address map, or as it is.
func (d *Dialer) Resolve(addr string) string {
	if to, ok := d.Endpoint.AddressMap[addr]; ok {
		return to
	}
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return addr
	}
	if to, ok := d.Endpoint.AddressMap[host]; ok {
		return net.JoinHostPort(to, port)
	}
	return addr
}

// Dial connects to addr, TLS included, without login. Errors are *Error.
func (d *Dialer) Dial(ctx context.Context, addr string) (net.Conn, error) {
	timeout := d.Endpoint.DialTimeout
	if timeout <= 0 {
		timeout = defaultDialTimeout
	}
	ctx, cancel := context.WithTimeoutCause(ctx, timeout, fmt.Errorf("no answer within %v", timeout))
	defer cancel()
	to, network := d.Resolve(addr), "tcp"
	if d.Endpoint.Scheme == SchemeUnix {
		to, network = addr, "unix"
	}
	open := d.Network
	if open == nil {
		open = (&net.Dialer{KeepAlive: tcpKeepAlive}).DialContext
	}
	conn, err := open(ctx, network, to)
	if err != nil {
		return nil, &Error{addr, dialOp(addr, to), orCause(ctx, err)}
	}
	if d.Endpoint.Scheme != SchemeTLS {
		return conn, nil
	}
	config, err := d.Endpoint.TLS.config(to)
	if err != nil {
		_ = conn.Close()
		return nil, &Error{addr, "TLS", err}
	}
	secured := tls.Client(conn, config)
	if err := secured.HandshakeContext(ctx); err != nil {
		_ = conn.Close()
		return nil, &Error{addr, "TLS handshake", orCause(ctx, err)}
	}
	return secured, nil
}

func dialOp(addr, to string) string {
	if addr == to {
		return "dial"
	}
	return "dial (as " + to + ")"
}

// orCause prefers the reason why ctx ended to the error that its end led to.
func orCause(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// config reads the certificate files. addr is the address that is dialled.
func (o TLSOptions) config(addr string) (*tls.Config, error) {
	c := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: o.ServerName, InsecureSkipVerify: o.Insecure}
	if c.ServerName == "" {
		host, _, err := net.SplitHostPort(addr)
		if err != nil {
			return nil, err
		}
		c.ServerName = host
	}
	if o.CAFile != "" {
		pem, err := os.ReadFile(o.CAFile)
		if err != nil {
			return nil, fmt.Errorf("CA file: %w", err)
		}
		c.RootCAs = x509.NewCertPool()
		if !c.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("CA file %s holds no certificate in PEM form", o.CAFile)
		}
	}
	if o.CertFile != "" || o.KeyFile != "" {
		cert, err := tls.LoadX509KeyPair(o.CertFile, o.KeyFile)
		if err != nil {
			return nil, fmt.Errorf("client certificate: %w", err)
		}
		c.Certificates = []tls.Certificate{cert}
	}
	return c, nil
}

// Open connects to addr and logs in. Errors are *Error; the caller closes the connection.
func (d *Dialer) Open(ctx context.Context, addr string) (*resp.Conn, error) {
	raw, err := d.Dial(ctx, addr)
	if err != nil {
		return nil, err
	}
	c := resp.NewConn(raw)
	if err := d.login(ctx, addr, c); err != nil {
		_ = c.Close()
		return nil, err
	}
	return c, nil
}

// login sends AUTH if there is anything to log in with. AUTH is answered while LOADING and BUSY (protocol.md 8).
func (d *Dialer) login(ctx context.Context, addr string, c *resp.Conn) error {
	password, err := d.password()
	if err != nil {
		return &Error{addr, "AUTH", err}
	}
	args := []string{"AUTH", password}
	if user := d.Endpoint.Username; user != "" {
		args = []string{"AUTH", user, password}
	} else if password == "" {
		return nil
	}
	if _, err := c.Do(ctx, loginTimeout, args...); err != nil {
		return failed(addr, "AUTH", err)
	}
	return nil
}

// password reads the password file, whose last line may end in a newline that is no part of the password.
func (d *Dialer) password() (string, error) {
	if d.Endpoint.Password != "" || d.Endpoint.PasswordFile == "" {
		return d.Endpoint.Password, nil
	}
	b, err := os.ReadFile(d.Endpoint.PasswordFile)
	if err != nil {
		return "", fmt.Errorf("password file: %w", err)
	}
	password := strings.TrimRight(string(b), "\r\n")
	if password == "" {
		return "", fmt.Errorf("password file %s is empty", d.Endpoint.PasswordFile)
	}
	return password, nil
}
