package rdbfile

import (
	"errors"
	"strings"
)

// ErrLogin is that of an address of a file which seems to hold a password. It does not repeat it.
var ErrLogin = errors.New("a file has no host and no login, for it is one of this machine: write rdb:///path (a relative path that looks like a login begins with ./)")

// HoldsLogin tells whether what follows the scheme of a file begins like user:password@host.
func HoldsLogin(path string) bool {
	host, _, _ := strings.Cut(path, "/")
	login, _, found := strings.Cut(host, "@")
	return found && strings.Contains(login, ":")
}
