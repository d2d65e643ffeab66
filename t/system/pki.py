# SPDX-License-Identifier: BSD-2-Clause
"""Certificates for tests, made with openssl(1): an Authority issues as many as a test wants.

    ca = Authority(folder)
    site = ca.issue("site", "site.test", "*.site.test")      # site.pem, site.key: paths
    old = ca.issue("old", "old.test", days=-1)               # has expired
    ca.path                                                   # for those who trust it"""
import subprocess


def openssl(*arguments, **how):
    done = subprocess.run(["openssl", *map(str, arguments)], capture_output=True, text=True, timeout=60, **how)
    assert done.returncode == 0, done.stderr
    return done.stdout


class Certificate:
    def __init__(self, pem, key):
        self.pem, self.key = pem, key

    @property
    def lines(self):
        """As a tls block wants it."""
        return f"certificate {self.pem}; key {self.key};"

    def fingerprint(self):
        return openssl("x509", "-in", self.pem, "-noout", "-fingerprint", "-sha256").split("=")[1].strip()


class Authority:
    def __init__(self, folder, name="ca"):
        self.folder = folder
        self.path, self.key = folder / f"{name}.pem", folder / f"{name}.key"
        self.serial = 1
        self.new_key(self.key, "ec")
        openssl("req", "-x509", "-new", "-key", self.key, "-subj", f"/CN=test {name}", "-days", 30,
                "-addext", "keyUsage=critical,keyCertSign,cRLSign", "-out", self.path)

    def new_key(self, path, kind):
        how = {"ec": ["EC", "-pkeyopt", "ec_paramgen_curve:P-256"],
               "rsa": ["RSA", "-pkeyopt", "rsa_keygen_bits:2048"],
               "ed25519": ["ED25519"]}[kind]
        openssl("genpkey", "-algorithm", *how, "-out", path)
        path.chmod(0o600)

    def issue(self, file, *names, kind="ec", days=30, subject=None, extensions="", chain=False):
        """The first name is the subject's; all are in subjectAltName."""
        certificate = Certificate(self.folder / f"{file}.pem", self.folder / f"{file}.key")
        self.new_key(certificate.key, kind)
        alternatives = ",".join(("IP:" if name[0].isdigit() else "DNS:") + name for name in names)
        config = self.folder / f"{file}.ext"
        config.write_text((f"subjectAltName={alternatives}\n" if names else "") + extensions)
        request = openssl("req", "-new", "-key", certificate.key, "-subj", subject or f"/CN={names[0]}")
        self.serial += 1
        dates = ["-days", days] if days > 0 else []
        if days > 0:
            pem = openssl("x509", "-req", "-CA", self.path, "-CAkey", self.key, "-set_serial", self.serial,
                          "-extfile", config, *dates, input=request)
        else:
            pem = self.expired(request, config)
        certificate.pem.write_text(pem + (self.path.read_text() if chain else ""))
        certificate.pem.chmod(0o644)
        return certificate

    def expired(self, request, config):
        """openssl x509 gives no dates in the past, openssl ca does."""
        folder = self.folder / f"ca-{self.serial}"
        folder.mkdir()
        (folder / "index").write_text("")
        (folder / "serial").write_text(f"{self.serial:04x}\n")
        (folder / "request").write_text(request)
        (folder / "conf").write_text(f"[ca]\ndefault_ca=d\n[d]\ndatabase={folder}/index\nserial={folder}/serial\n"
                                     f"new_certs_dir={folder}\ndefault_md=sha256\npolicy=p\n"
                                     f"[p]\ncommonName=supplied\n")
        openssl("ca", "-batch", "-config", folder / "conf", "-cert", self.path, "-keyfile", self.key, "-in",
                folder / "request", "-extfile", config, "-startdate", "20200101000000Z", "-enddate",
                "20200201000000Z", "-out", folder / "out", "-notext")
        return (folder / "out").read_text()
