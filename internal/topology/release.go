package topology

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/keyhaul/keyhaul/rdb"
)

// Release is the release of Redis or Valkey that a server is, or that it says it is compatible with. A server that says
// nothing, such as a proxy, is the zero Release.
func (n Node) Release() rdb.Release {
	switch n.Product {
	case "redis":
		return rdb.Release{Major: n.Major, Minor: n.Minor}
	case "valkey":
		return rdb.Release{Valkey: true, Major: n.Major, Minor: n.Minor}
	}
	major, rest, _ := strings.Cut(n.RedisVersion, ".")
	minor, _, _ := strings.Cut(rest, ".")
	var r rdb.Release
	r.Major, _ = strconv.Atoi(major)
	r.Minor, _ = strconv.Atoi(minor)
	return r
}

// NodeOf is a server of a release, of which nothing else is known.
func NodeOf(r rdb.Release) Node {
	n := Node{Product: "redis", Major: r.Major, Minor: r.Minor, Version: fmt.Sprintf("%d.%d", r.Major, r.Minor)}
	if r.Valkey {
		n.Product = "valkey"
	}
	return n
}
