package main

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"

	"github.com/keyhaul/keyhaul/internal/topology"
)

// load runs loadConfig as a command with args would.
func load(t *testing.T, args, environ []string, required ...string) (config, error) {
	t.Helper()
	cmd := &cobra.Command{Use: "sync"}
	addSettings(cmd, required...)
	if err := cmd.ParseFlags(args); err != nil {
		t.Fatal(err)
	}
	return loadConfig(cmd, append([]string{"HOME=/home/ada", "PATH=/bin"}, environ...))
}

func mustLoad(t *testing.T, args, environ []string) config {
	t.Helper()
	c, err := load(t, args, environ)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func writeFile(t *testing.T, name, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestPrecedence(t *testing.T) {
	file := writeFile(t, "c.yaml", "name: file\nsource: {url: 'redis://file'}\nspool:\n  retain: 7s\nlog-level: debug\n")
	env := []string{"KEYHAUL_NAME=env", "KEYHAUL_SOURCE_URL=redis://env"}
	c := mustLoad(t, []string{"--config", file, "--name=flag"}, env)
	if c.Name != "flag" || c.Source.Addrs[0] != "env:6379" || c.Spool.Retain != 7*time.Second || c.LogLevel != "debug" ||
		c.Spool.RetainBytes != 1<<30 {
		t.Errorf("%+v", c)
	}
	c = mustLoad(t, []string{"--source=redis://flag"}, append(env, "KEYHAUL_CONFIG="+file))
	if c.Source.Addrs[0] != "flag:6379" || c.Spool.Retain != 7*time.Second {
		t.Errorf("%+v", c)
	}
	if c := mustLoad(t, []string{"--source-url=redis://flag"}, nil); c.Source.Addrs[0] != "flag:6379" {
		t.Errorf("%+v", c)
	}
	short := writeFile(t, "c.toml", "source = 'redis://short'\n'spool.retain' = '8s'\n")
	if c := mustLoad(t, []string{"--config", short}, nil); c.Source.Addrs[0] != "short:6379" || c.Spool.Retain != 8*time.Second {
		t.Errorf("%+v", c)
	}
}

func TestDefaults(t *testing.T) {
	daemon := mustLoad(t, nil, nil)
	oneShot := mustLoad(t, []string{"--until=caught-up"}, nil)
	if daemon.OneShot() || daemon.OnError != "hold" || daemon.ConnectDeadline != 0 {
		t.Errorf("daemon: %+v", daemon)
	}
	if !oneShot.OneShot() || oneShot.OnError != "stop" || oneShot.ConnectDeadline != time.Minute {
		t.Errorf("one-shot: %+v", oneShot)
	}
	c := mustLoad(t, []string{"--until=snapshot", "--connect-deadline=0", "--on-error=skip", "--http="}, nil)
	if c.ConnectDeadline != 0 || c.OnError != "skip" || c.HTTP != "" || !c.HTTPExplicit {
		t.Errorf("explicit: %+v", c)
	}
	if c := mustLoad(t, nil, []string{"KEYHAUL_CONNECT_DEADLINE=5s"}); c.ConnectDeadline != 5*time.Second {
		t.Errorf("explicit: %+v", c)
	}
	d := daemon
	if d.Name != "default" || d.HTTP != "127.0.0.1:9420" || d.HTTPExplicit || d.Existing != "fail" ||
		d.Delivery != "exactly-once" || d.ExpiryMode != "source" || d.ExpiryGrace != time.Hour || d.OnLostHistory != "fail" || d.MaxSkipped != 1000 || d.DrainDeadline != 8*time.Second ||
		d.Source.DialTimeout != 5*time.Second || d.ReplyTimeout != time.Minute || d.OpenSlotTimeout != 10*time.Minute || !d.Keepalive.Enabled ||
		d.Buffer.MaxBytes == 0 || d.Buffer.MaxBytes > 128<<20 || d.Ack != "auto" ||
		d.ReadyMaxLag != 30*time.Second || d.LogFormat != "auto" || d.Progress != "auto" || d.DryRun {
		t.Errorf("%+v", d)
	}
}

func TestStateDir(t *testing.T) {
	for _, c := range []struct {
		args, env []string
		want      string
	}{
		{nil, nil, "/home/ada/.local/state/keyhaul"},
		{nil, []string{"XDG_STATE_HOME=/x"}, "/x/keyhaul"},
		{nil, []string{"XDG_STATE_HOME=relative"}, "/home/ada/.local/state/keyhaul"},
		{nil, []string{"XDG_STATE_HOME=/x", "STATE_DIRECTORY=/var/lib/a:/var/lib/b"}, "/var/lib/a"},
		{nil, []string{"STATE_DIRECTORY=/a", "KEYHAUL_STATE_DIR=/b"}, "/b"},
		{[]string{"--state-dir=none"}, nil, ""},
	} {
		if got := mustLoad(t, c.args, c.env).StateDir; got != c.want {
			t.Errorf("%v %v: %q, want %q", c.args, c.env, got, c.want)
		}
	}
	if _, err := load(t, nil, []string{"HOME="}); err == nil || !strings.Contains(err.Error(), "state-dir") {
		t.Errorf("without HOME: %v", err)
	}
}

func TestAllMistakesAtOnce(t *testing.T) {
	file := writeFile(t, "c.toml", `
untill = "snapshot"
max-skipped = [1]
buffer.max-bytes = "many"
[source]
url = "redis://u:secretpassword@h/3"
address-map = { "a:1" = "b:2", "c:1" = "d:2" }
[spool]
retain = 60
`)
	_, err := load(t, []string{"--config", file, "--on-error=panic", "--name=../x", "--target-url=redis://x", "--target=redis://y"},
		[]string{"KEYHAUL_SOURCE_PASWORD=secretpassword", "KEYHAUL_DELIVERY=twice", "KEYHAUL_DRY_RUN=maybe"},
		"source.url", "target.url")
	for _, want := range []string{
		"untill (" + file + "): is unknown: did you mean until?",
		"max-skipped (" + file + "): must be one int, not a list",
		"buffer.max-bytes (" + file + `): "many" is no size`,
		"source.url (" + file + "): the address ends in a path or database number",
		"source.address-map (" + file + "): must be a list, not a table",
		"spool.retain (" + file + `): "60" has no unit: write 60s`,
		`on-error (--on-error): "panic" is none of stop, hold, skip`,
		`name (--name): "../x" is no name`,
		"target.url (--target): is given twice, also as --target-url",
		"KEYHAUL_SOURCE_PASWORD (environment): is unknown: did you mean KEYHAUL_SOURCE_PASSWORD?",
		`delivery (KEYHAUL_DELIVERY): "twice" is none of exactly-once, at-least-once`,
		`dry-run (KEYHAUL_DRY_RUN): "maybe" is neither true nor false`,
		"12 mistakes",
	} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not in:\n%v", want, err)
		}
	}
	if err != nil && strings.Contains(err.Error(), "secretpassword") {
		t.Errorf("a secret is in:\n%v", err)
	}
	var all mistakes
	if !errors.As(err, &all) || len(all) != 12 {
		t.Errorf("%d mistakes", len(all))
	}
}

func TestMistakes(t *testing.T) {
	for _, c := range []struct {
		args, env []string
		want      string
	}{
		{nil, nil, ""},
		{[]string{"--source-tls-ca=x", "--source=redis://h"}, nil, "source.tls.ca (--source-tls-ca): has no effect without TLS: begin source.url with rediss://"},
		{[]string{"--source-tls-cert=x", "--source=rediss://h"}, nil, "source.tls.cert (--source-tls-cert): needs source.tls.key too"},
		{[]string{"--target-tls-key=x", "--target=rediss://h"}, nil, "target.tls.key (--target-tls-key): needs target.tls.cert too"},
		{[]string{"--source=redis://:secretpassword@h", "--source-password-file=f"}, nil, "not both"},
		{[]string{"--source-password=secretpassword", "--source-password-file=f"}, nil, "either this or source.password, not both"},
		{[]string{"--source=redis+sentinel://:secretpassword@h"}, nil, "source.url (--source): the address of sentinels must end in the name of the primary"},
		{[]string{"--http=9420"}, nil, "write host:port"},
		{[]string{"--http=:99999"}, nil, "write host:port"},
		{[]string{"--drain-deadline=-1s"}, nil, "is no time"},
		{[]string{"--dial-timeout=0"}, nil, "must be more than 0"},
		{[]string{"--spool-max-bytes=1k"}, nil, "too small"},
		{[]string{"--writer-snapshot-lanes=-1"}, nil, "between 0 and 64"},
		{[]string{"--target-address-map=a:1=b"}, nil, "a port on both sides"},
		{[]string{"--target-address-map=a:1"}, nil, "write announced=reachable"},
		{[]string{"--target-address-map=a:x=b:1"}, nil, "the port is no number"},
		{[]string{"--name=.."}, nil, "begin with a letter or digit"},
		{[]string{"--state-dir="}, nil, "is empty"},
		{[]string{"--source", "/backup/dump.rdb"}, nil, "rdb:///path/dump.rdb"},
		{[]string{"--source", "file:///backup/dump.rdb"}, nil, "rdb:///path/dump.rdb"},
		{[]string{"--target", "/backup/dump.rdb"}, nil, "jsonl:///path"},
		{[]string{"--config="}, nil, "names no file"},
		{[]string{"--config=/nowhere/x.toml"}, nil, "/nowhere/x.toml (--config): cannot be read: no such file"},
		{nil, []string{"KEYHAUL_CONFIG=x.json"}, "x.json (KEYHAUL_CONFIG): is no configuration file"},
		{nil, []string{"KEYHAUL_SOURCE=redis://a", "KEYHAUL_SOURCE_URL=redis://b"}, "given twice"},
		{nil, []string{"KEYHAUL_QQQQQQQQQQQQQQQ=1"}, "is unknown: see --help"},
		{nil, []string{"KEYHAUL_TEST_X=1", "KEYHAUL_SERVERS=x", "KEYHAUL_MAX_SKIPPED="}, ""},
		{nil, []string{"KEYHAUL_PORT=tcp://10.0.0.1:9420", "KEYHAUL_SERVICE_HOST=10.0.0.1", "KEYHAUL_PORT_9420_TCP_ADDR=x", "KEYHAUL_A_SERVICE_PORT_HTTP=1"}, ""},
	} {
		_, err := load(t, c.args, c.env)
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v %v: got %v, want %q", c.args, c.env, err, c.want)
		}
		if err != nil && (strings.Contains(err.Error(), "secretpassword") || strings.Count(err.Error(), "\n") > 0) {
			t.Errorf("%v: %v", c.args, err)
		}
	}
	_, err := load(t, nil, nil, "source.url")
	if err == nil || err.Error() != "configuration: source.url is missing: give --source or KEYHAUL_SOURCE_URL" {
		t.Errorf("got %v", err)
	}
}

// A file that is not what it should be must not be quoted: it may be a password file.
func TestFileErrorsHoldNoContent(t *testing.T) {
	for name, content := range map[string]string{
		"scalar.yaml": "secretpassword", "broken.yaml": "a: [secretpassword\nb: }", "tab.yml": "source:\n\tpassword: secretpassword",
		"scalar.toml": "secretpassword", "broken.toml": "[source]\npassword = secretpassword", "twice.toml": "name='secretpassword'\nname='secretpassword'",
	} {
		_, err := load(t, []string{"--config", writeFile(t, name, content)}, nil)
		if err == nil || strings.Contains(err.Error(), "secretpassword") || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// No secret comes up in a message, whichever layer it is from and whatever else is wrong.
func TestSecretsAreNotPrinted(t *testing.T) {
	var args, env []string
	for _, s := range settings() {
		if s.secret {
			args = append(args, key2flag(s.key)+"=://secretpassword@")
			env = append(env, key2env(s.key)+"=://secretpassword@")
		}
	}
	args = append(args, "--name=!")
	for _, run := range [][2][]string{{args, nil}, {{"--name=!"}, env}} {
		_, err := load(t, run[0], run[1])
		if err == nil || strings.Contains(err.Error(), "secretpassword") {
			t.Errorf("%v", err)
		}
	}
}

func TestParseBytes(t *testing.T) {
	for text, want := range map[string]int64{
		"0": 0, "1048576": 1 << 20, "64MiB": 64 << 20, "64 mib": 64 << 20, "1GB": 1e9, "512k": 512e3, "512Ki": 512 << 10,
		"1.5GiB": 3 << 29, "100b": 100, "2T": 2e12, "8388607TiB": 8388607 << 40,
	} {
		if got, err := parseBytes(text); err != nil || got != want {
			t.Errorf("%s: %d %v, want %d", text, got, err, want)
		}
	}
	for _, text := range []string{"", "x", "-1", "1.2.3", "MiB", "1Q", "1ib", "9223372036854775808", "9000000000GiB", "10000000.5TiB", "1e3"} {
		if got, err := parseBytes(text); err == nil {
			t.Errorf("%q was read as %d", text, got)
		}
	}
}

func TestMemoryLimit(t *testing.T) {
	root := t.TempDir()
	put := func(name, content string) {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	steps := []struct {
		file, content string
		want          int64
	}{
		{"none", "", 0},
		{"proc/meminfo", "MemTotal:        2048 kB\nMemFree: 1 kB\n", 2 << 20},
		{"proc/self/cgroup", "0::/a/b\n", 2 << 20},
		{"sys/fs/cgroup/a/b/memory.max", "max\n", 2 << 20},
		{"sys/fs/cgroup/a/memory.max", "1048576\n", 1 << 20},
		{"proc/self/cgroup", "4:memory:/docker/x\n3:cpu:/y\n0::/\n", 2 << 20},
		{"sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n", 2 << 20},
		{"sys/fs/cgroup/memory/docker/x/memory.limit_in_bytes", "4096\n", 4096},
	}
	for _, s := range steps {
		put(s.file, s.content)
		if got := memoryLimit(root); got != s.want {
			t.Errorf("with %s: %d, want %d", s.file, got, s.want)
		}
	}
	for limit, want := range map[int64]int64{0: 128 << 20, 1 << 30: 128 << 20, 256 << 20: 64 << 20, 1 << 20: 4 << 20} {
		if got := defaultBuffer(limit); got != want {
			t.Errorf("limit %d: %d, want %d", limit, got, want)
		}
	}
}

func TestAddressMap(t *testing.T) {
	want := map[string]string{"10.0.0.1:6379": "g:7001", "node-1": "1.2.3.4", "::1": "h", "[::1]:1": "[::2]:2"}
	args := []string{"--source-address-map=10.0.0.1:6379=g:7001, node-1=1.2.3.4", "--source-address-map=::1=h", "--source-address-map=[::1]:1=[::2]:2"}
	if got := mustLoad(t, args, nil).Source.AddressMap; !reflect.DeepEqual(got, want) {
		t.Errorf("%v", got)
	}
	env := []string{"KEYHAUL_SOURCE_ADDRESS_MAP=10.0.0.1:6379=g:7001,node-1=1.2.3.4,::1=h,[::1]:1=[::2]:2"}
	if got := mustLoad(t, nil, env).Source.AddressMap; !reflect.DeepEqual(got, want) {
		t.Errorf("%v", got)
	}
}

func TestSettingsTable(t *testing.T) {
	keys := settingKeys()
	if len(slices.Compact(slices.Clone(keys))) != len(keys) {
		t.Error("a key is there twice")
	}
	for _, s := range settings() {
		if strings.Count(s.usage, "`")%2 != 0 || s.usage == "" || s.key != strings.ToLower(s.key) {
			t.Errorf("%s: usage %q", s.key, s.usage)
		}
		if foreign.MatchString(key2env(s.key)) && s.key != "config" {
			t.Errorf("%s is taken for a foreign variable", s.key)
		}
	}
	cmd := &cobra.Command{Use: "sync"}
	addSettings(cmd)
	help := cmd.Flags().FlagUsages()
	for _, want := range []string{"--source address", "--target-password-file file", "--until when", "(default 1GiB)", "--dry-run"} {
		if !strings.Contains(help, want) {
			t.Errorf("%q is not in:\n%s", want, help)
		}
	}
	for _, hidden := range []string{"--source-url", "--keepalive-enabled"} {
		if strings.Contains(help, hidden) {
			t.Errorf("%s is shown", hidden)
		}
	}
	if c := mustLoad(t, []string{"--dry-run", "--keepalive-enabled=false"}, nil); !c.DryRun || c.Keepalive.Enabled {
		t.Errorf("%+v", c)
	}
}

func TestExampleFiles(t *testing.T) {
	files, err := filepath.Glob("../../configs/*.*")
	if err != nil || len(files) < 3 {
		t.Fatalf("%v %v", files, err)
	}
	got := map[string]config{}
	for _, file := range files {
		c, err := load(t, []string{"--config", file}, nil, "source.url", "target.url")
		if err != nil {
			t.Errorf("%v", err)
		}
		got[filepath.Base(file)] = c
	}
	if c := got["one-shot.toml"]; !c.OneShot() || c.Source.Username != "keyhaul" || c.ConnectDeadline != 2*time.Minute {
		t.Errorf("%+v", c)
	}
	if c := got["daemon.yaml"]; c.OneShot() || c.Spool.MaxBytes != 20<<30 || c.LogFormat != "json" || c.Spool.Retain != 5*time.Minute {
		t.Errorf("%+v", c)
	}
	if c := got["sentinel.toml"]; c.Target.Scheme != topology.SchemeTLS || c.Target.Primary != "orders" || len(c.Source.Sentinels.Addrs) != 3 ||
		c.Target.Sentinels.Scheme != topology.SchemeTLS || c.Target.Sentinels.Addrs[0] != "sentinel1.new.example:26379" || c.Target.Sentinels.Username != "keyhaul" {
		t.Errorf("%+v", c)
	}
	if c := got["cluster-to-cluster.toml"]; len(c.Source.Addrs) != 3 || !c.PreferReplica || c.MaxSnapshots != 2 || c.Ack != ackAuto {
		t.Errorf("%+v", c)
	}
	if c := got["to-cluster-tls.toml"]; len(c.Target.AddressMap) != 3 || c.Source.TLS.CertFile == "" ||
		c.Target.AddressMap["10.1.0.3:6379"] != "gate.new.example:7003" {
		t.Errorf("%+v", c)
	}
}
