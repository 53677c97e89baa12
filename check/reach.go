package check

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"time"

	"github.com/keyhaul/keyhaul/internal/resp"
)

// reach says why a server is not spoken to.
func (s *side) reach(addr string, err error) Finding {
	f := Finding{Severity: Fatal, Subject: s.name + " " + addr, Evidence: err.Error()}
	var refused *resp.Error
	var invalid x509.CertificateInvalidError
	var unknown x509.UnknownAuthorityError
	var other x509.HostnameError
	switch {
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		f.ID, f.Remedy = "certificate-expired", "renew the server's certificate, and look at the clocks of both machines"
	case errors.As(err, &invalid), errors.As(err, &unknown):
		f.ID, f.Remedy = "certificate-untrusted", "name the authority that has signed the certificate: --"+s.name+"-tls-ca"
	case errors.As(err, &other):
		f.ID, f.Remedy = "certificate-untrusted", "say which name the certificate has: --"+s.name+"-tls-server-name"
	case !errors.As(err, &refused):
		f.ID, f.Remedy = "unreachable", "start the "+s.name+", or correct its address; look at firewalls between here and there (--"+s.name+"-address-map helps behind NAT)"
	case refused.Code == "DENIED":
		f.ID, f.Remedy = "protected-mode", "set a password on the server (requirepass), or `protected-mode no` if its network is trusted"
	case refused.Code == "NOPERM":
		f.ID, f.Remedy = "missing-permissions", aclLine(s.dialer.Endpoint.Username, []need{{rules: "+info +cluster|slots"}})+"; what else is missing shows then"
	case loginRefused(refused):
		f.ID, f.Remedy = "login-refused", "correct user and password: --"+s.name+"-username, --"+s.name+"-password-file"
	case strings.Contains(refused.Text, "max number of clients"):
		f.ID, f.Remedy = "unreachable", "raise `maxclients` on the server, or close connections there"
	default:
		f.ID, f.Remedy = "unreachable", "look at the server's log"
	}
	return f
}

func loginRefused(e *resp.Error) bool {
	return e.Code == "WRONGPASS" || e.Code == "NOAUTH" || strings.Contains(e.Text, "invalid password") ||
		strings.Contains(e.Text, "AUTH <password> called without any password")
}

// soon is how long before its end a certificate is warned of.
const soon = 14 * 24 * time.Hour

// certificate looks at the end of the certificate that a server has shown.
func (s *server) certificate(c net.Conn) {
	secured, ok := c.(*tls.Conn)
	if !ok {
		return
	}
	if shown := secured.ConnectionState().PeerCertificates; len(shown) > 0 {
		s.expiry(shown[0], "the server's certificate", "renew it, and have the server read it (CONFIG SET tls-cert-file)")
	}
}

// ownCertificate looks at the end of the certificate that keyhaul shows to the servers.
func (s *side) ownCertificate() {
	path := s.dialer.Endpoint.TLS.CertFile
	if path == "" || len(s.servers) == 0 {
		return
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return // it was read to get here
	}
	block, _ := pem.Decode(text)
	if block == nil {
		return
	}
	if leaf, err := x509.ParseCertificate(block.Bytes); err == nil {
		s.servers[0].expiry(leaf, "keyhaul's own certificate", "renew it: the file is read again at each connect")
	}
}

func (s *server) expiry(leaf *x509.Certificate, whose, remedy string) {
	left := time.Until(leaf.NotAfter)
	end := leaf.NotAfter.UTC().Format("2006-01-02 15:04 MST")
	switch {
	case left <= 0:
		s.find("certificate-expired", Warn, remedy, "%s has expired: %s", whose, end)
	case left < soon:
		s.find("certificate-expiring", Warn, remedy, "%s ends within %s: %s", whose, roughly(left), end)
	}
}

// roughly is a time for people.
func roughly(d time.Duration) string {
	switch {
	case d >= 48*time.Hour:
		return fmt.Sprintf("%d days", int(d.Hours()/24))
	case d >= 2*time.Hour:
		return fmt.Sprintf("%d hours", int(d.Hours()))
	case d >= 2*time.Minute:
		return fmt.Sprintf("%d minutes", int(d.Minutes()))
	}
	return fmt.Sprintf("%.3g s", d.Seconds())
}

// size is a number of bytes for people.
func size(n int64) string {
	switch {
	case n >= 10<<30:
		return fmt.Sprintf("%d GiB", n>>30)
	case n >= 10<<20:
		return fmt.Sprintf("%d MiB", n>>20)
	case n >= 10<<10:
		return fmt.Sprintf("%d KiB", n>>10)
	}
	return fmt.Sprintf("%d bytes", n)
}
