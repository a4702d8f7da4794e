package console

import (
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"
)

// contentPolicy lets nothing run, load or frame but the page's own files, and lets no
// text become markup even by mistake (trusted types).
const contentPolicy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; " +
	"form-action 'self'; base-uri 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"

// CheckAddr says whether a console may be served at an address: off loopback it needs
// a password. An empty address is no console, and fine.
func CheckAddr(addr, password string) error {
	if addr == "" {
		return nil
	}
	if _, port, err := net.SplitHostPort(addr); err != nil {
		return errors.New("CONSOLE_ADDR: not an address such as 127.0.0.1:9091")
	} else if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 && port != "0" {
		return errors.New("CONSOLE_ADDR: not an address such as 127.0.0.1:9091")
	}
	if password == "" && !loopback(addr) {
		return errors.New("CONSOLE_PASSWORD: must be set, since CONSOLE_ADDR is not on loopback")
	}
	return nil
}

// loopback says whether only this machine reaches an address.
func loopback(addr string) bool {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		host = strings.Trim(addr, "[]")
	}
	ip := net.ParseIP(host)
	return strings.EqualFold(host, "localhost") || ip != nil && ip.IsLoopback()
}

// Of wrong passwords from one address failuresAtOnce are answered, then one a
// failureEvery. Many addresses share the last entry, so that memory stays bounded.
const (
	failuresAtOnce = 10
	failureEvery   = 6 * time.Second
	mostAddresses  = 1024
)

// A guard stands before everything that the console serves.
type guard struct {
	open  bool // no password: only by a name of this machine
	want  [32]byte
	cross *http.CrossOriginProtection

	mu     sync.Mutex
	failed map[string]*failures
	now    func() time.Time
}

type failures struct {
	left float64
	at   time.Time
}

func newGuard(addr, password string) *guard {
	return &guard{open: password == "", want: sha256.Sum256([]byte(User + "\x00" + password)),
		cross: http.NewCrossOriginProtection(), failed: map[string]*failures{}, now: time.Now}
}

// protect answers those who may not in, and sets the headers of every answer.
func (g *guard) protect(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", contentPolicy)
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("X-Frame-Options", "DENY")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cross-Origin-Opener-Policy", "same-origin")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		h.Set("Permissions-Policy", "camera=(), geolocation=(), microphone=(), payment=(), usb=()")
		h.Set("Cache-Control", "no-store")
		switch {
		case g.open && !loopback(r.Host):
			// Another name for this machine: a page elsewhere may have pointed its own
			// name here to read what is only for who sits at it.
			http.Error(w, "open the console as http://127.0.0.1 or http://localhost", http.StatusForbidden)
			return
		case !g.open && !g.known(w, r):
			return
		}
		if site := r.Header.Get("Sec-Fetch-Site"); site != "" && site != "same-origin" && site != "none" && r.URL.Path != "/" {
			http.Error(w, "not from another site", http.StatusForbidden)
			return
		}
		if err := g.cross.Check(r); err != nil {
			http.Error(w, "not from another site", http.StatusForbidden)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// known checks the password. A browser's first request bears none and counts as no
// failure. Who has failed too often is not even asked, or guessing could go on.
func (g *guard) known(w http.ResponseWriter, r *http.Request) bool {
	user, password, sent := r.BasicAuth()
	from, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		from = r.RemoteAddr
	}
	if sent && g.blocked(from) {
		w.Header().Set("Retry-After", strconv.Itoa(int(failureEvery.Seconds())))
		http.Error(w, "too many wrong passwords, wait a little", http.StatusTooManyRequests)
		return false
	}
	got := sha256.Sum256([]byte(user + "\x00" + password))
	if sent && subtle.ConstantTimeCompare(got[:], g.want[:]) == 1 {
		return true
	}
	if sent {
		g.fail(from)
	}
	w.Header().Set("WWW-Authenticate", `Basic realm="leadpipe", charset="UTF-8"`)
	http.Error(w, "the console needs the user "+User+" and CONSOLE_PASSWORD", http.StatusUnauthorized)
	return false
}

func (g *guard) blocked(from string) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.of(from).left < 1
}

func (g *guard) fail(from string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.of(from).left--
}

// of is what an address has left now. The caller holds g.mu.
func (g *guard) of(from string) *failures {
	now := g.now()
	f, ok := g.failed[from]
	if !ok && len(g.failed) >= mostAddresses {
		for a, old := range g.failed { // those that have everything back
			if now.Sub(old.at) > failuresAtOnce*failureEvery {
				delete(g.failed, a)
			}
		}
		if len(g.failed) >= mostAddresses {
			from = "others"
			f, ok = g.failed[from]
		}
	}
	if !ok {
		f = &failures{left: failuresAtOnce, at: now}
		g.failed[from] = f
	}
	f.left = min(failuresAtOnce, f.left+now.Sub(f.at).Seconds()/failureEvery.Seconds())
	f.at = now
	return f
}
