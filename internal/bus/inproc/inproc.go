// Package inproc runs a NATS server inside the program, from the same nats.conf that
// a stand-alone nats-server reads. It is a package of its own so that programs which
// only talk to a server do not link one.
package inproc

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
)

// The users of nats.conf, and the environment variables of their passwords.
var variables = map[string]string{
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
	opts      *server.Options   // as they were before the server completed them
	passwords map[string]string // by user
	port      int
	keep      keeper

	mu      sync.Mutex // held while the server is started anew
	srv     *server.Server
	stopped bool
}

// Start runs a server and waits until it takes connections and JetStream is up, or
// until ctx ends. An unset password becomes the user's name, on loopback only
// (ErrDevelopmentPasswords). Other errors name the variable that can't be right, and
// hold no password.
func Start(ctx context.Context, o Options) (*Server, error) {
	opts, passwords, err := prepare(o)
	if err != nil {
		return nil, err
	}
	s := &Server{opts: opts.Clone(), passwords: passwords}
	s.keep.init(opts.StoreDir)
	if s.srv, err = boot(ctx, opts, s.notice); err != nil {
		return nil, err
	}
	if a, ok := s.srv.Addr().(*net.TCPAddr); ok {
		s.port = a.Port
	}
	return s, nil
}

// boot starts a server and waits until it is up, or until ctx ends. notice is told what it
// logs as errors.
func boot(ctx context.Context, opts *server.Options, notice func(line string)) (*server.Server, error) {
	srv, err := server.NewServer(opts)
	if err != nil {
		return nil, fmt.Errorf("setting up the NATS server: %w", err)
	}
	srv.SetLogger(errorsOf(notice), false, false)
	srv.Start()
	// Recovery reads every message of the duplicate window: seconds for a million.
	for deadline := time.Now().Add(5 * time.Minute); !srv.ReadyForConnections(200 * time.Millisecond); {
		switch {
		case ctx.Err() != nil:
			end(srv)
			return nil, fmt.Errorf("waiting for the NATS server: %w", ctx.Err())
		case !srv.Running() || time.Now().After(deadline):
			end(srv)
			return nil, fmt.Errorf("the NATS server did not become ready, see its store %s", opts.StoreDir)
		}
	}
	if !srv.JetStreamEnabled() {
		end(srv)
		return nil, fmt.Errorf("the NATS server could not open its store %s", opts.StoreDir)
	}
	return srv, nil
}

func end(srv *server.Server) {
	srv.Shutdown()
	srv.WaitForShutdown()
}

// Try finds what Start would stumble over, and starts nothing: the file, the passwords,
// the port, the store's directory, which it makes.
func Try(o Options) error {
	_, _, err := prepare(o)
	return err
}

// prepare reads the configuration and tries what it names.
func prepare(o Options) (opts *server.Options, passwords map[string]string, err error) {
	opts, passwords, guessable, err := configuration(o.ConfigFile)
	if err != nil {
		return nil, nil, err
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
		return nil, nil, ErrDevelopmentPasswords
	}
	if opts.Port > 0 {
		// The server would log this and stay half up; say it in one line instead.
		l, err := net.Listen("tcp", net.JoinHostPort(opts.Host, fmt.Sprint(opts.Port)))
		if err != nil {
			return nil, nil, fmt.Errorf("starting the NATS server (set NATS_URL to use one that runs already): %w", err)
		}
		_ = l.Close()
	}
	if err := writable(opts.StoreDir); err != nil && !NearlyFull(opts.StoreDir) {
		return nil, nil, fmt.Errorf("NATS_STORE_DIR: %w", err)
	}
	// The server would take three quarters of what is free now for the most that it may ever
	// store, which is nothing on a disk that is full when it starts. The reserve is our limit.
	if _, total, err := diskSpace(opts.StoreDir); err == nil && opts.JetStreamMaxStore <= 0 {
		opts.JetStreamMaxStore = int64(min(total, math.MaxInt64))
	}
	return opts, passwords, nil
}

// configuration reads nats.conf. The file takes passwords from the environment, where
// the server would read them as parts of its syntax: "12345" as a number, "$x" as a
// variable. So it is given a stand-in, and the passwords are set afterwards. Unlike in
// nats-server, an include is relative to the working directory. guessable: some
// password is its user's name.
func configuration(file string) (opts *server.Options, passwords map[string]string, guessable bool, err error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, nil, false, fmt.Errorf("NATS_CONF: %w", err)
	}
	conf := string(text)
	passwords = map[string]string{}
	for user, variable := range variables {
		p := cmp.Or(os.Getenv(variable), user)
		if strings.HasPrefix(p, "$2a$") {
			return nil, nil, false, fmt.Errorf("%s: must not begin with $2a$, which the server takes for a bcrypt hash", variable)
		}
		passwords[user], guessable = p, guessable || p == user
		conf = strings.ReplaceAll(conf, "$"+variable, `"stand-in"`)
	}
	opts = &server.Options{ConfigFile: file}
	err = opts.ProcessConfigString(conf)
	var found interface{ Errors() []error } // beside warnings
	if err != nil && (!errors.As(err, &found) || len(found.Errors()) > 0) {
		return nil, nil, false, fmt.Errorf("NATS_CONF: reading %s: %w", file, err)
	}
	for user, password := range passwords {
		i := slices.IndexFunc(opts.Users, func(u *server.User) bool { return u.Username == user })
		if i < 0 {
			// A login that is refused in-process would wait for ever.
			return nil, nil, false, fmt.Errorf("NATS_CONF: %s has no user %q", file, user)
		}
		opts.Users[i].Password = password
	}
	return opts, passwords, guessable, nil
}

// writable says whether a directory can be made and written to. A full disk does not count:
// that may change.
func writable(dir string) error {
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return err
	}
	probe := filepath.Join(dir, ".probe")
	if err := os.WriteFile(probe, nil, 0o600); err != nil {
		return err
	}
	return os.Remove(probe)
}

// current is the server that runs now.
func (s *Server) current() *server.Server {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.srv
}

// URL is where clients reach the server, without user and password.
func (s *Server) URL() string { return s.current().ClientURL() }

// UserURL is the URL with a user of nats.conf and its password in it.
func (s *Server) UserURL(user string) string {
	login := strings.ReplaceAll(url.UserPassword(user, s.passwords[user]).String(), ",", "%2C") // commas part URLs
	return strings.Replace(s.URL(), "nats://", "nats://"+login+"@", 1)
}

// InProcess connects a client through memory instead of TCP, as the given user.
func (s *Server) InProcess(user string) []nats.Option {
	return []nats.Option{nats.InProcessServer(s), nats.UserInfo(user, s.passwords[user])}
}

// InProcessConn is for nats.InProcessServer.
func (s *Server) InProcessConn() (net.Conn, error) { return s.current().InProcessConn() }

// Stop shuts the server down and waits for its files to be closed.
func (s *Server) Stop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stopped = true
	end(s.srv)
}

// Kill stops the server as a crash would as far as clients see it.
func (s *Server) Kill() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stopped = true
	s.srv.Shutdown()
}

// Server is the server itself, for tests of clusters.
func (s *Server) Server() *server.Server { return s.current() }

func loopback(host string) bool {
	if host == "localhost" {
		return true
	}
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback()
}
