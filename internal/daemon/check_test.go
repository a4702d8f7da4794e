package daemon

import (
	"net/http"
	"net/http/httptest"
	"testing"
)

// A path in PUBLIC_URL is taken as meant where the edge answers behind it.
func TestPathInPublicURL(t *testing.T) {
	t.Parallel()
	proxy := httptest.NewServer(http.StripPrefix("/hooks", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/healthz" {
			http.NotFound(w, r)
		}
	})))
	t.Cleanup(proxy.Close)
	if err := healthy(t.Context(), proxy.URL+"/hooks/healthz"); err != nil {
		t.Errorf("behind the proxy: %v", err)
	}
	if err := healthy(t.Context(), proxy.URL+"/other/healthz"); err == nil {
		t.Error("a path that nobody strips")
	}
	if got := CheckPublicURL(t.Context(), "https://hooks.invalid/hooks"); len(got) != 1 || got[0].State != Fail {
		t.Errorf("nobody there: %+v", got)
	}
	if got := CheckPublicURL(t.Context(), "https://hooks.invalid/"); len(got) != 1 || got[0].State != OK {
		t.Errorf("no path: %+v", got)
	}
}
