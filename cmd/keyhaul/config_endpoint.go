package main

import (
	"errors"

	"github.com/keyhaul/keyhaul/haul"
	"github.com/keyhaul/keyhaul/internal/topology"
	"github.com/keyhaul/keyhaul/rdb"
	"github.com/keyhaul/keyhaul/reader"
	"github.com/keyhaul/keyhaul/writer"
)

// source puts the settings of the source together: of files, or of a server.
func (r *resolver) source() end {
	const url = "source.url"
	if !reader.NamesFiles(r.values[url].text()) {
		r.refuseIdle("aof-until", "without an append-only file: begin source.url with aof://")
		return end{Endpoint: r.endpoint("source")}
	}
	files, err := reader.ParseFiles(r.values[url].text())
	if err != nil {
		r.refuse(url, err.Error())
	}
	if files.Stop, err = reader.ParseStop(r.values["aof-until"].text()); err != nil {
		r.refuse("aof-until", err.Error())
	}
	if !files.AOF {
		r.refuseIdle("aof-until", "without an append-only file: begin source.url with aof://")
	}
	for _, s := range endSettings("source", "") {
		if s.key != url {
			r.refuseIdle(s.key, "where the source is a file")
		}
	}
	return end{Files: files}
}

// target puts the settings of the target together: of a file, or of a server.
func (r *resolver) target() end {
	const url = "target.url"
	if !writer.NamesFile(r.values[url].text()) {
		r.refuseIdle("target.release", "where the target is no file of commands: begin target.url with resp://")
		return end{Endpoint: r.endpoint("target")}
	}
	file, err := writer.ParseFileTarget(r.values[url].text())
	if err != nil {
		r.refuse(url, err.Error())
	}
	for _, s := range append(endSettings("target", ""), setting{key: "target.mode"}) {
		if s.key != url {
			r.refuseIdle(s.key, "where the target is a file")
		}
	}
	return end{Output: &file}
}

// output settles what a target that is a file is to be given, and refuses what it cannot be.
func (r *resolver) output(c *config) {
	commands := c.Source.Files == nil || c.Source.Files.AOF
	switch {
	case !r.explicit("until") && c.Source.Files == nil:
		c.Until = untilSnapshot
	case commands && !c.Target.Output.Stream() && c.Until != untilSnapshot:
		r.refuse("until", "must be snapshot for a file of keys: it cannot take the commands that follow (a resp:// file can)")
	case c.Until == "":
		r.refuse("until", "must be snapshot or caught-up where the target is a file: it is whole at its end only")
	}
	if c.TargetRelease != (rdb.Release{}) && c.Target.Output.Format != writer.FileRESP {
		r.refuse("target.release", "has no effect where the target is no file of commands: begin target.url with resp://")
	}
	if c.Existing != existingFail && c.Existing != existingReplace {
		r.refuse("existing", "must be fail or replace where the target is a file")
	}
	for from, to := range c.DBs {
		if c.Target.Output.Format == writer.FileRDB && to != haul.DropDB && !c.DBs.Alone(from) {
			r.refuse("db-map", "puts databases together, which a snapshot file does not allow: keys of one name would be there twice")
			break
		}
	}
}

// release reads a release of a server; the zero Release is none.
func (r *resolver) release(key string) rdb.Release {
	text := r.values[key].text()
	if text == "" {
		return rdb.Release{}
	}
	release, err := rdb.ParseRelease(text)
	if err != nil {
		r.refuse(key, err.Error())
	}
	return release
}

// endpoint puts the settings of one end together. The zero Endpoint stands for an end without a URL.
func (r *resolver) endpoint(end string) topology.Endpoint {
	e := topology.Endpoint{}
	if url := end + ".url"; r.values[url].text() != "" {
		var err error
		e, err = topology.Parse(r.values[url].text())
		switch {
		case errors.Is(err, topology.ErrScheme) && end == "source":
			r.refuse(url, err.Error()+"; files are rdb:///path/dump.rdb and aof:///path/appendonlydir")
		case errors.Is(err, topology.ErrScheme):
			r.refuse(url, err.Error()+"; files are rdb:///path, resp:///path and jsonl:///path")
		case err != nil:
			r.refuse(url, err.Error())
		}
	}
	r.login(&e, end+".")
	r.tls(&e, end+".tls.", "without TLS: begin "+end+".url with rediss://")
	e.AddressMap = r.addressMap(end + ".address-map")
	if e.Scheme != "" {
		r.sentinels(e.Sentinels, end)
	}
	return e
}

// sentinels puts together how the sentinels of one end are asked. to is nil if there are none.
func (r *resolver) sentinels(to *topology.Endpoint, end string) {
	prefix := end + ".sentinel-"
	if to == nil {
		for _, key := range []string{"username", "password", "password-file", "tls", "tls-ca", "tls-cert", "tls-key", "tls-server-name", "tls-insecure"} {
			r.refuseIdle(prefix+key, "without sentinels: begin "+end+".url with redis+sentinel://")
		}
		return
	}
	if r.bool(prefix + "tls") {
		to.Scheme = topology.SchemeTLS
	}
	r.login(to, prefix)
	r.tls(to, prefix+"tls-", "without "+prefix+"tls")
}

// login reads user and password from the settings that begin with prefix. They go before what the URL says.
func (r *resolver) login(e *topology.Endpoint, prefix string) {
	if user := r.values[prefix+"username"].text(); user != "" {
		e.Username = user
	}
	inURL := e.Password != ""
	password := r.values[prefix+"password"].text()
	if password != "" {
		e.Password = password
	}
	e.PasswordFile = r.values[prefix+"password-file"].text()
	if e.Password != "" && e.PasswordFile != "" {
		other := prefix + "password"
		if inURL && password == "" {
			other = "the password in " + prefix + "url"
		}
		r.refuse(prefix+"password-file", "give either this or "+other+", not both")
	}
}

// tls reads the settings of TLS that begin with prefix. without says when they have no effect.
func (r *resolver) tls(e *topology.Endpoint, prefix, without string) {
	text := func(key string) string { return r.values[prefix+key].text() }
	e.TLS = topology.TLSOptions{
		CAFile: text("ca"), CertFile: text("cert"), KeyFile: text("key"),
		ServerName: text("server-name"), Insecure: r.bool(prefix + "insecure"),
	}
	if (e.TLS.CertFile == "") != (e.TLS.KeyFile == "") {
		key, other := prefix+"cert", prefix+"key"
		if e.TLS.CertFile == "" {
			key, other = other, key
		}
		r.refuse(key, "needs "+other+" too")
	}
	if e.Scheme == "" || e.Scheme == topology.SchemeTLS {
		return
	}
	for _, key := range []string{"ca", "cert", "key", "server-name", "insecure"} {
		r.refuseIdle(prefix+key, without)
	}
}

// refuseIdle refuses a setting that was given where it has no effect.
func (r *resolver) refuseIdle(key, where string) {
	if v := r.values[key]; r.explicit(key) && v.text() != "" && v.text() != "false" {
		r.refuse(key, "has no effect "+where)
	}
}
