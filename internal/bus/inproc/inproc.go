// Package inproc runs a NATS server inside the program, from the same nats.conf that
// a stand-alone nats-server reads. It is a package of its own so that programs which
// only talk to a server do not link one.
package inproc

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
)

// The users of nats.conf, and the environment variables of their passwords.
var passwords = map[string]string{
	"edge":      "NATS_EDGE_PASSWORD",
	"consumers": "NATS_CONSUMERS_PASSWORD",
	"operator":  "NATS_OPERATOR_PASSWORD",
}

// ErrDevelopmentPasswords refuses a server that others could reach and whose
// passwords anyone can guess.
var ErrDevelopmentPasswords = errors.New("nats.conf listens beyond loopback: set NATS_EDGE_PASSWORD, NATS_CONSUMERS_PASSWORD and NATS_OPERATOR_PASSWORD")

// Options say where the server's configuration and files are.
type Options struct {
	ConfigFile string                // nats.conf
	StoreDir   string                // in place of the file's store_dir, unless empty
	Port       int                   // in place of the file's port, unless 0; -1 takes a free one
	Monitoring bool                  // serve the file's monitoring port
	Adjust     func(*server.Options) // a last word for tests (clusters, sync interval); may be nil
}

// A Server is a running NATS server.
type Server struct {
	srv  *server.Server
	opts *server.Options
}

// Start runs a server and waits until it takes connections and JetStream is up. An
// unset password becomes the user's name, on loopback only (ErrDevelopmentPasswords).
func Start(o Options) (*Server, error) {
	guessable := false
	for user, variable := range passwords {
		// The configuration file reads the environment itself, so the default goes there.
		if p := os.Getenv(variable); p == "" {
			if err := os.Setenv(variable, user); err != nil {
				return nil, fmt.Errorf("setting %s: %w", variable, err)
			}
		}
		guessable = guessable || os.Getenv(variable) == user
	}
	opts, err := server.ProcessConfigFile(o.ConfigFile)
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", o.ConfigFile, err)
	}
	opts.NoSigs = true
	if o.StoreDir != "" {
		opts.StoreDir = o.StoreDir
	}
	if o.Port != 0 {
		opts.Port = o.Port
	}
	if !o.Monitoring {
		opts.HTTPPort, opts.HTTPHost = 0, ""
	}
	if o.Adjust != nil {
		o.Adjust(opts)
	}
	if guessable && !loopback(opts.Host) {
		return nil, ErrDevelopmentPasswords
	}
	if opts.Port > 0 {
		// The server would log this and stay half up; say it in one line instead.
		l, err := net.Listen("tcp", net.JoinHostPort(opts.Host, fmt.Sprint(opts.Port)))
		if err != nil {
			return nil, fmt.Errorf("starting the NATS server (set NATS_URL to use one that runs already): %w", err)
		}
		_ = l.Close()
	}
	srv, err := server.NewServer(opts)
	if err != nil {
		return nil, fmt.Errorf("setting up the NATS server: %w", err)
	}
	srv.Start()
	s := &Server{srv: srv, opts: opts}
	// Recovery reads every message of the duplicate window: seconds for a million.
	if !srv.ReadyForConnections(5 * time.Minute) {
		s.Stop()
		return nil, fmt.Errorf("the NATS server did not become ready, see its store %s", opts.StoreDir)
	}
	if !srv.JetStreamEnabled() {
		s.Stop()
		return nil, fmt.Errorf("the NATS server could not open its store %s", opts.StoreDir)
	}
	return s, nil
}

// URL is where clients reach the server, without user and password.
func (s *Server) URL() string { return s.srv.ClientURL() }

// UserURL is the URL with a user of nats.conf and its password in it.
func (s *Server) UserURL(user string) string {
	return strings.Replace(s.URL(), "nats://", "nats://"+user+":"+os.Getenv(passwords[user])+"@", 1)
}

// InProcess connects a client through memory instead of TCP, as the given user.
func (s *Server) InProcess(user string) []nats.Option {
	return []nats.Option{nats.InProcessServer(s.srv), nats.UserInfo(user, os.Getenv(passwords[user]))}
}

// Stop shuts the server down and waits for its files to be closed.
func (s *Server) Stop() {
	s.srv.Shutdown()
	s.srv.WaitForShutdown()
}

// Kill stops the server as a crash would as far as clients see it.
func (s *Server) Kill() { s.srv.Shutdown() }

// Server is the server itself, for tests of clusters.
func (s *Server) Server() *server.Server { return s.srv }

func loopback(host string) bool {
	if host == "localhost" {
		return true
	}
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback()
}
