package topology

import (
	"context"
	"crypto/tls"
	"encoding/pem"
	"errors"
	"io"
	"net"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestResolve(t *testing.T) {
	d := NewDialer(Endpoint{AddressMap: map[string]string{
		"10.0.0.1:6379": "127.0.0.1:7001", "10.0.0.2": "gate.example", "::1": "fe80::2",
	}})
	for in, want := range map[string]string{
		"10.0.0.1:6379": "127.0.0.1:7001",
		"10.0.0.1:6380": "10.0.0.1:6380",
		"10.0.0.2:6380": "gate.example:6380",
		"[::1]:1":       "[fe80::2]:1",
		"/run/x.sock":   "/run/x.sock",
	} {
		if got := d.Resolve(in); got != want {
			t.Errorf("%s: %s, want %s", in, got, want)
		}
	}
}

func TestDialMapsAddresses(t *testing.T) {
	n := newFakeNet(t)
	d := n.dialer("redis://a:1")
	d.Endpoint.AddressMap = map[string]string{"a:1": "b:2"}
	_, err := d.Dial(t.Context(), "a:1")
	if err == nil || err.Error() != "a:1: dial (as b:2): connection refused" || n.dialled[0] != "b:2" {
		t.Errorf("%v %v", err, n.dialled)
	}
}

func TestDialTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := NewDialer(Endpoint{Scheme: SchemeTCP})
		d.Network = func(ctx context.Context, _, _ string) (net.Conn, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		}
		began := time.Now()
		_, err := d.Open(t.Context(), "a:1")
		if err == nil || err.Error() != "a:1: dial: no answer within 5s" || time.Since(began) != 5*time.Second {
			t.Errorf("%v after %v", err, time.Since(began))
		}
	})
}

func TestTLSHandshakeTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := NewDialer(Endpoint{Scheme: SchemeTLS, DialTimeout: time.Second})
		d.Network = func(context.Context, string, string) (net.Conn, error) {
			near, far := net.Pipe()
			go func() { _, _ = io.Copy(io.Discard, far) }()
			return near, nil
		}
		_, err := d.Dial(t.Context(), "a:1")
		if err == nil || err.Error() != "a:1: TLS handshake: no answer within 1s" {
			t.Errorf("%v", err)
		}
	})
}

func TestPasswordFileIsReadAtEachConnect(t *testing.T) {
	n := newFakeNet(t)
	var got []string
	n.serve("a:1", func(cmd []string) string { got = append(got, strings.Join(cmd, " ")); return "+OK\r\n" })
	d := n.dialer("redis://a:1")
	file := filepath.Join(t.TempDir(), "password")
	d.Endpoint.PasswordFile = file
	if _, err := d.Open(t.Context(), "a:1"); err == nil || !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a missing file: %v", err)
	}
	for _, c := range []struct{ user, content string }{{"", "one\n"}, {"bob", "two"}, {"", "\n"}} {
		d.Endpoint.Username = c.user
		if err := os.WriteFile(file, []byte(c.content), 0o600); err != nil {
			t.Fatal(err)
		}
		conn, err := d.Open(t.Context(), "a:1")
		if c.content == "\n" {
			if err == nil || !strings.Contains(err.Error(), "is empty") {
				t.Errorf("an empty file: %v", err)
			}
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		conn.Close()
	}
	n.wg.Wait()
	if strings.Join(got, ", ") != "AUTH one, AUTH bob two" {
		t.Errorf("sent %q", got)
	}
}

func TestAuthErrorsHoldNoSecret(t *testing.T) {
	n := newFakeNet(t)
	n.serve("a:1", func(cmd []string) string {
		return "-ERR unknown command 'AUTH', with args beginning with: '" + cmd[len(cmd)-1] + "' \r\n"
	})
	d := n.dialer("redis://u:secretpassword@a:1")
	_, err := d.Open(t.Context(), "a:1")
	if err == nil || err.Error() != "a:1: AUTH: ERR unknown command 'AUTH'" {
		t.Errorf("got %v", err)
	}
}

// The certificate of httptest names 127.0.0.1 and example.com.
func TestTLSVerification(t *testing.T) {
	web := httptest.NewTLSServer(nil)
	defer web.Close()
	l, err := tls.Listen("tcp", "127.0.0.1:0", web.TLS)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() { _, _ = io.Copy(io.Discard, c); c.Close() }()
		}
	}()
	ca := filepath.Join(t.TempDir(), "ca.pem")
	block := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: web.Certificate().Raw})
	if err := os.WriteFile(ca, block, 0o600); err != nil {
		t.Fatal(err)
	}
	noPEM := filepath.Join(t.TempDir(), "none.pem")
	if err := os.WriteFile(noPEM, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		o   TLSOptions
		err string
	}{
		"own authority":       {TLSOptions{CAFile: ca}, ""},
		"server name":         {TLSOptions{CAFile: ca, ServerName: "example.com"}, ""},
		"unverified":          {TLSOptions{Insecure: true}, ""},
		"wrong name":          {TLSOptions{CAFile: ca, ServerName: "elsewhere.test"}, "TLS handshake: tls: failed to verify certificate: x509: certificate is valid for example.com"},
		"unknown authority":   {TLSOptions{}, "TLS handshake: tls: failed to verify certificate: x509: certificate signed by unknown authority"},
		"missing CA":          {TLSOptions{CAFile: ca + "x"}, "TLS: CA file: open"},
		"no certificate":      {TLSOptions{CAFile: noPEM}, "holds no certificate"},
		"missing certificate": {TLSOptions{CAFile: ca, CertFile: ca, KeyFile: noPEM}, "TLS: client certificate: "},
	} {
		d := NewDialer(Endpoint{Scheme: SchemeTLS, TLS: c.o})
		conn, err := d.Dial(t.Context(), l.Addr().String())
		if err == nil {
			conn.Close()
		}
		if (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
			t.Errorf("%s: got %v, want %q", name, err, c.err)
		}
	}
}
