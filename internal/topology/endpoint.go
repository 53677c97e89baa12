// Package topology finds servers and connects to them: addresses, TLS and login, what a node is, who owns which slot,
// and the one state machine that every connection to a source or a target goes through.
package topology

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Schemes of an endpoint.
const (
	SchemeTCP  = "redis"
	SchemeTLS  = "rediss"
	SchemeUnix = "unix"
)

// sentinel is what schemes end in when the addresses are those of sentinels.
const sentinel = "+sentinel"

const (
	defaultPort         = "6379"
	defaultSentinelPort = "26379"
	defaultDialTimeout  = 5 * time.Second
)

// Endpoint is one end of a haul as it was configured. It holds secrets: printing it shows scheme and addresses only.
type Endpoint struct {
	Scheme string   // SchemeTCP, SchemeTLS or SchemeUnix
	Addrs  []string // host:port, IPv6 in brackets; or the path of one unix socket; none where sentinels are asked

	Sentinels *Endpoint // they name the primary; nil where the servers' own addresses are known
	Primary   string    // the name that the sentinels know the primary by

	Username     string
	Password     string `json:"-"`
	PasswordFile string // read again at each connect; used when Password is empty

	TLS TLSOptions // for SchemeTLS

	// AddressMap turns announced addresses into reachable ones at every dial: "host:port" to "host:port", or "host" to
	// "host" with the port kept.
	AddressMap map[string]string

	DialTimeout time.Duration // of a dial including the TLS handshake; 0 means 5 s
}

// TLSOptions say how a server is verified and what is shown to it. The files are read again at each connect.
type TLSOptions struct {
	CAFile     string // PEM; empty means the system's certificate authorities
	CertFile   string // PEM, the client's own certificate; together with KeyFile
	KeyFile    string
	ServerName string // empty means the host that is dialled
	Insecure   bool   // the server is not verified
}

// Several tells whether the server behind the endpoint may be found at another address later.
func (e Endpoint) Several() bool { return e.Sentinels != nil || len(e.Addrs) > 1 }

// String returns scheme and addresses, never user or password.
func (e Endpoint) String() string {
	if e.Sentinels != nil {
		return e.Scheme + sentinel + "://" + strings.Join(e.Sentinels.Addrs, ",") + "/" + e.Primary
	}
	return e.Scheme + "://" + strings.Join(e.Addrs, ",")
}

// GoString keeps secrets out of %#v.
func (e Endpoint) GoString() string { return "topology.Endpoint(" + e.String() + ")" }

// ErrScheme is wrapped by the errors of an address that may be none of a server.
var ErrScheme = errors.New("scheme")

var (
	errNoScheme      = fmt.Errorf("the address has no %w: write redis://host:6379 (rediss:// for TLS, unix:// for a socket)", ErrScheme)
	errUnknownScheme = fmt.Errorf("the address has an unknown %w: use redis://, rediss:// (TLS), redis+sentinel://, rediss+sentinel:// or unix://", ErrScheme)
)

// Parse reads the address of a server or cluster:
//
//	redis://user:password@host:6379    rediss://h1:1,h2:2,[::1]:3    unix:///path    unix://user:password@/path
//	redis+sentinel://user:password@h1:26379,h2:26379/name            rediss+sentinel://…
//
// With sentinels, user, password and TLS are those of the servers that they name. User and password are percent-decoded. Its errors never repeat a part of the address, which may hold a password.
func Parse(rawURL string) (Endpoint, error) {
	scheme, rest, found := strings.Cut(strings.TrimSpace(rawURL), "://")
	if !found {
		return Endpoint{}, errNoScheme
	}
	e := Endpoint{Scheme: strings.ToLower(scheme)}
	switch e.Scheme {
	case SchemeTCP, SchemeTLS:
		return e, e.parseServers(rest)
	case SchemeTCP + sentinel, SchemeTLS + sentinel:
		e.Scheme = strings.TrimSuffix(e.Scheme, sentinel)
		return e, e.parseSentinels(rest)
	case SchemeUnix:
		return e, e.parseSocket(rest)
	}
	return Endpoint{}, errUnknownScheme
}

func (e *Endpoint) parseServers(rest string) error {
	hosts, err := e.cutUser(rest)
	if err != nil {
		return err
	}
	if hosts, err = cutPath(hosts); err != nil {
		return err
	}
	return e.parseHosts(hosts, defaultPort)
}

// parseSentinels reads hosts and the name of the primary behind them.
func (e *Endpoint) parseSentinels(rest string) error {
	rest, err := e.cutUser(rest)
	if err != nil {
		return err
	}
	hosts, path, _ := strings.Cut(rest, "/")
	if strings.ContainsAny(rest, "?#") {
		return errors.New("the address ends in a query (?) or fragment (#): remove it, options have settings of their own")
	}
	name, err := url.PathUnescape(path)
	if err != nil || name == "" || strings.ContainsAny(path, "/") || strings.ContainsFunc(name, func(r rune) bool { return r <= ' ' || r == 0x7f }) {
		return errors.New("the address of sentinels must end in the name of the primary: write redis+sentinel://host:26379/mymaster")
	}
	e.Primary = name
	e.Sentinels = &Endpoint{Scheme: SchemeTCP}
	return e.Sentinels.parseHosts(hosts, defaultSentinelPort)
}

// cutUser reads user and password and returns what stands behind them.
func (e *Endpoint) cutUser(rest string) (string, error) {
	at := strings.LastIndexByte(rest, '@')
	if at < 0 {
		return rest, nil
	}
	return rest[at+1:], e.parseUser(rest[:at])
}

func (e *Endpoint) parseHosts(hosts, port string) error {
	list := strings.Split(hosts, ",")
	for i, host := range list {
		addr, err := normalizeAddr(strings.TrimSpace(host), port)
		if err != nil && len(list) > 1 {
			return fmt.Errorf("address %d of %d: %w", i+1, len(list), err)
		}
		if err != nil {
			return err
		}
		if !slices.Contains(e.Addrs, addr) {
			e.Addrs = append(e.Addrs, addr)
		}
	}
	return nil
}

// cutPath refuses what stands behind the hosts: keyhaul hauls all databases, and options are settings of their own.
func cutPath(hosts string) (string, error) {
	i := strings.IndexAny(hosts, "/?#")
	if i < 0 || hosts[i:] == "/" {
		return strings.TrimSuffix(hosts, "/"), nil
	}
	if hosts[i] == '/' {
		return "", errors.New("the address ends in a path or database number: remove it, all databases are hauled")
	}
	return "", errors.New("the address ends in a query (?) or fragment (#): remove it, options have settings of their own")
}

func (e *Endpoint) parseSocket(rest string) error {
	user, path, found := strings.Cut(rest, "/")
	if !found {
		return errors.New("the address of a unix socket has no absolute path: write unix:///path/to.sock")
	}
	if user != "" {
		user, found = strings.CutSuffix(user, "@")
		if !found {
			return errors.New("the path of a unix socket must be absolute: write unix:///path/to.sock")
		}
		if err := e.parseUser(user); err != nil {
			return err
		}
	}
	if strings.ContainsAny(path, "?#") {
		return errors.New("the address of a unix socket ends in a query (?) or fragment (#): remove it, options have settings of their own")
	}
	path, err := url.PathUnescape(path)
	if err != nil || path == "" || strings.ContainsRune(path, 0) {
		return errors.New("the address of a unix socket has no valid path: write unix:///path/to.sock")
	}
	e.Addrs = []string{"/" + path}
	return nil
}

func (e *Endpoint) parseUser(text string) error {
	if strings.ContainsAny(text, "/?#") {
		return errors.New("user or password holds one of / ? #: write it percent-encoded (%2F %3F %23), or use the settings for user and password")
	}
	user, password, _ := strings.Cut(text, ":")
	var err1, err2 error
	e.Username, err1 = url.PathUnescape(user)
	e.Password, err2 = url.PathUnescape(password)
	if err1 != nil || err2 != nil {
		return errors.New("user or password holds a % that starts no percent-encoding: write it as %25")
	}
	return nil
}

// NormalizeAddr returns host as host:port, with the default port 6379 where it has none and IPv6 in brackets. Its
// errors do not repeat the address.
func NormalizeAddr(host string) (string, error) { return normalizeAddr(host, defaultPort) }

func normalizeAddr(host, port string) (string, error) {
	if host == "" {
		return "", errors.New("the host is empty")
	}
	if inner, ok := strings.CutPrefix(host, "["); ok {
		var rest string
		if host, rest, ok = strings.Cut(inner, "]"); !ok {
			return "", errors.New("the bracket of an IPv6 address is not closed")
		}
		host = strings.Replace(host, "%25", "%", 1) // a zone, RFC 6874
		if rest != "" {
			if port, ok = strings.CutPrefix(rest, ":"); !ok {
				return "", errors.New("a port must follow the IPv6 address in brackets: write [::1]:6379")
			}
		}
		if name, _, _ := strings.Cut(host, "%"); net.ParseIP(name) == nil || !strings.Contains(name, ":") {
			return "", errors.New("there is no IPv6 address in the brackets")
		}
	} else {
		switch strings.Count(host, ":") {
		case 0:
		case 1:
			host, port, _ = strings.Cut(host, ":")
		default:
			return "", errors.New("an IPv6 address goes in brackets: write [::1]:6379")
		}
		if host == "" {
			return "", errors.New("the host is empty")
		}
	}
	if strings.ContainsFunc(host, func(r rune) bool { return r <= ' ' || r == 0x7f || strings.ContainsRune("[]@/?#\\", r) }) {
		return "", errors.New("the host holds a character that no host name has")
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil || n == 0 {
		return "", errors.New("the port is no number between 1 and 65535")
	}
	return net.JoinHostPort(host, strconv.FormatUint(n, 10)), nil
}
