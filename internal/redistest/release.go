package redistest

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// knownReleases are those that scripts/servers.sh can install, oldest first within a family.
var knownReleases = []string{
	"redis-6.0", "redis-7.0", "redis-8.0", "valkey-8.0", "valkey-8.1", "valkey-9.1", "redict-7.3",
}

// Version is the release of a server: Family is "redis", "valkey" or "redict".
type Version struct {
	Family       string
	Major, Minor int
}

// AtLeast tells whether a server of any family has the features of Redis major.minor, up to 7.2, from which the
// families parted.
func (v Version) AtLeast(major, minor int) bool {
	if v.Family != "redis" {
		return major < 7 || major == 7 && minor <= 2
	}
	return v.Major > major || v.Major == major && v.Minor >= minor
}

func (v Version) String() string { return fmt.Sprintf("%s %d.%d", v.Family, v.Major, v.Minor) }

// serversDir is where scripts/servers.sh installs releases.
func serversDir() string {
	if dir := os.Getenv("KEYHAUL_SERVERS"); dir != "" {
		return dir
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return ""
	}
	return filepath.Join(home, ".cache", "keyhaul", "servers")
}

func releasePath(release string) string { return filepath.Join(serversDir(), "bin", release+"-server") }

// Releases lists the installed releases by name, such as redis-7.0.
func Releases() []string {
	return slices.DeleteFunc(slices.Clone(knownReleases), func(name string) bool {
		_, err := os.Stat(releasePath(name))
		return err != nil
	})
}

// Require skips the test when release is not installed.
func Require(t TB, release string) {
	t.Helper()
	if _, err := findServer(release); err != nil {
		skip(t, "%v", err)
	}
}

// findServer returns the program of a release. For "" that is $KEYHAUL_TEST_SERVER (a release or a path), or a server
// on PATH, or any installed release.
func findServer(release string) (string, error) {
	if release == "" {
		release = os.Getenv("KEYHAUL_TEST_SERVER")
	}
	if strings.ContainsRune(release, filepath.Separator) {
		return release, nil
	}
	if release != "" {
		path := releasePath(release)
		if _, err := os.Stat(path); err != nil {
			return "", fmt.Errorf("redistest: release %q is not installed (scripts/servers.sh %s): %w", release, release, err)
		}
		return path, nil
	}
	for _, name := range []string{"redis-server", "valkey-server"} {
		if path, err := exec.LookPath(name); err == nil {
			return path, nil
		}
	}
	if all := Releases(); len(all) > 0 {
		return releasePath(all[0]), nil
	}
	return "", fmt.Errorf("redistest: no server on PATH, none in %s: run scripts/servers.sh", serversDir())
}

var versionLine = regexp.MustCompile(`^(\w+) server v=(\d+)\.(\d+)`)

// programVersion asks a server program what it is.
func programVersion(path string) (Version, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, path, "--version").Output()
	if err != nil {
		return Version{}, fmt.Errorf("redistest: %s --version: %w", path, err)
	}
	m := versionLine.FindStringSubmatch(string(out))
	if m == nil {
		return Version{}, fmt.Errorf("redistest: %s --version says %q, which is no known server", path, out)
	}
	v := Version{Family: strings.ToLower(m[1])}
	v.Major, _ = strconv.Atoi(m[2]) // digits, by the expression
	v.Minor, _ = strconv.Atoi(m[3])
	return v, nil
}
