// Package natstest gives tests a real NATS server: in-process, on a free port, from
// the project's own nats.conf, with its own store directory and with all streams
// and durables of the streams package applied.
package natstest

import (
	"bytes"
	"context"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"leadpipe/internal/bus"
	"leadpipe/internal/bus/inproc"
	"leadpipe/streams"
)

// A Server is a running server, or cluster, with everything applied.
type Server struct {
	Nodes []*inproc.Server // one, or three of a cluster
	conf  string
	dir   string
	opt   options
	ports []int
	tb    testing.TB
}

type options struct {
	former   bool
	lazySync bool
	bare     bool
	nodes    int
}

// An Option changes what New starts.
type Option func(*options)

// LazySync leaves writing to disk to the operating system, for tests of volume
// where durability is not the point.
func LazySync(o *options) { o.lazySync = true }

// Former lets the consumers listen to the inbox that programs of the first release have,
// as nats.conf says to do while some of them still run.
func Former(o *options) { o.former = true }

// Bare applies no stream.
func Bare(o *options) { o.bare = true }

// Cluster starts three servers, and streams of three replicas.
func Cluster(o *options) { o.nodes = 3 }

// New starts a server that stops with the test.
func New(tb testing.TB, opts ...Option) *Server {
	tb.Helper()
	s := &Server{tb: tb, conf: Root(tb, "nats.conf"), dir: tb.TempDir(), opt: options{nodes: 1}}
	for _, o := range opts {
		o(&s.opt)
	}
	if s.opt.former {
		s.conf = s.former()
	}
	s.Nodes = make([]*inproc.Server, s.opt.nodes)
	s.ports = make([]int, s.opt.nodes)
	if s.opt.nodes > 1 {
		for i := range s.Nodes {
			s.ports[i] = Port(tb)
		}
	}
	for i := range s.Nodes {
		s.Start(i)
	}
	tb.Cleanup(func() {
		for _, n := range s.Nodes {
			if n != nil {
				n.Stop()
			}
		}
	})
	if s.opt.nodes > 1 {
		s.awaitLeader()
	}
	if !s.opt.bare {
		s.Apply()
	}
	return s
}

func (s *Server) former() string {
	s.tb.Helper()
	conf, err := os.ReadFile(s.conf)
	if err != nil {
		s.tb.Fatal(err)
	}
	path := filepath.Join(s.dir, "nats.conf")
	own := []byte(`subscribe: { allow: ["_INBOX.consumers.>"] }`)
	if bytes.Count(conf, own) != 1 {
		s.tb.Fatalf("%s does not say %s once", s.conf, own)
	}
	if err := os.WriteFile(path, bytes.Replace(conf, own, []byte(`subscribe: { allow: ["_INBOX.>"] }`), 1), 0o600); err != nil {
		s.tb.Fatal(err)
	}
	return path
}

// Start starts node i again, on its old store and port.
func (s *Server) Start(i int) {
	s.tb.Helper()
	port := Port(s.tb)     // may be needed again: the system gives a port of its own choice to others meanwhile
	if s.Nodes[i] != nil { // it ran before: clients look for it where it was
		u, err := url.Parse(s.Nodes[i].URL())
		if err != nil {
			s.tb.Fatal(err)
		}
		if _, err := fmt.Sscanf(u.Port(), "%d", &port); err != nil {
			s.tb.Fatal(err)
		}
	}
	srv, err := inproc.Start(s.tb.Context(), inproc.Options{
		ConfigFile: s.conf,
		StoreDir:   filepath.Join(s.dir, fmt.Sprint(i)),
		Port:       port,
		Adjust: func(o *server.Options) {
			if s.opt.lazySync {
				o.SyncAlways, o.SyncInterval = false, 2*time.Minute
			}
			if s.opt.nodes > 1 {
				o.ServerName = fmt.Sprintf("node%d", i)
				o.Cluster.Name = "test"
				o.Cluster.Host = "127.0.0.1"
				o.Cluster.Port = s.ports[i]
				var routes []string
				for _, p := range s.ports {
					routes = append(routes, fmt.Sprintf("nats://127.0.0.1:%d", p))
				}
				o.Routes = server.RoutesFromStr(strings.Join(routes, ","))
			}
		},
	})
	if err != nil {
		s.tb.Fatal(err)
	}
	s.Nodes[i] = srv
}

// Apply creates the streams and durables.
func (s *Server) Apply() {
	s.tb.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	js := s.JetStream("operator")
	for {
		_, err := streams.Apply(ctx, js, s.opt.nodes)
		if err == nil {
			return
		}
		if ctx.Err() != nil || s.opt.nodes == 1 {
			s.tb.Fatal(err)
		}
		time.Sleep(100 * time.Millisecond) // a young cluster has no leader yet
	}
}

func (s *Server) awaitLeader() {
	s.tb.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for time.Now().Before(deadline) {
		for _, n := range s.Nodes {
			if n.Server().JetStreamIsLeader() && len(n.Server().JetStreamClusterPeers()) == len(s.Nodes) {
				return
			}
		}
		time.Sleep(20 * time.Millisecond)
	}
	s.tb.Fatal("the cluster found no leader")
}

// URL is where a user of nats.conf connects, all nodes of a cluster.
func (s *Server) URL(user string) string {
	var urls []string
	for _, n := range s.Nodes {
		urls = append(urls, n.UserURL(user))
	}
	return strings.Join(urls, ",")
}

// Connect connects as a user of nats.conf; the connection closes with the test.
func (s *Server) Connect(user string, opts ...nats.Option) *nats.Conn {
	s.tb.Helper()
	opts = append([]nats.Option{nats.CustomInboxPrefix(bus.InboxPrefix(user)), nats.MaxReconnects(-1), nats.ReconnectWait(50 * time.Millisecond)}, opts...)
	nc, err := nats.Connect(s.URL(user), opts...)
	if err != nil {
		s.tb.Fatal(err)
	}
	s.tb.Cleanup(nc.Close)
	return nc
}

// JetStream connects as a user of nats.conf.
func (s *Server) JetStream(user string) jetstream.JetStream {
	s.tb.Helper()
	js, err := jetstream.New(s.Connect(user))
	if err != nil {
		s.tb.Fatal(err)
	}
	return js
}

// Root finds a file by its path from the project's root.
func Root(tb testing.TB, name string) string {
	tb.Helper()
	dir, err := os.Getwd()
	if err != nil {
		tb.Fatal(err)
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return filepath.Join(dir, name)
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			tb.Fatal("no go.mod above the working directory")
		}
		dir = parent
	}
}
