import java.io.FileInputStream;
import java.io.FileOutputStream;
import java.io.InputStream;
import java.io.OutputStream;
import java.net.Socket;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.KeyFactory;
import java.security.KeyPair;
import java.security.KeyPairGenerator;
import java.security.KeyStore;
import java.security.PrivateKey;
import java.security.Security;
import java.security.cert.Certificate;
import java.security.cert.CertificateFactory;
import java.security.cert.TrustAnchor;
import java.security.cert.X509Certificate;
import java.security.spec.PKCS8EncodedKeySpec;
import java.util.Arrays;
import java.util.Base64;
import java.util.Date;
import java.util.Set;
import javax.net.ssl.KeyManagerFactory;
import javax.security.auth.x500.X500Principal;
import org.bouncycastle.asn1.ASN1ObjectIdentifier;
import org.bouncycastle.cert.X509CertificateHolder;
import org.bouncycastle.cert.jcajce.JcaX509CertificateConverter;
import org.bouncycastle.est.CACertsResponse;
import org.bouncycastle.est.ESTAuth;
import org.bouncycastle.est.ESTException;
import org.bouncycastle.est.ESTService;
import org.bouncycastle.est.EnrollmentResponse;
import org.bouncycastle.est.jcajce.ChannelBindingProvider;
import org.bouncycastle.est.jcajce.JcaHttpAuthBuilder;
import org.bouncycastle.est.jcajce.JcaJceUtils;
import org.bouncycastle.est.jcajce.JsseESTServiceBuilder;
import org.bouncycastle.jce.provider.BouncyCastleProvider;
import org.bouncycastle.jsse.BCSSLSocket;
import org.bouncycastle.jsse.provider.BouncyCastleJsseProvider;
import org.bouncycastle.operator.ContentSigner;
import org.bouncycastle.operator.jcajce.JcaContentSignerBuilder;
import org.bouncycastle.pkcs.PKCS10CertificationRequest;
import org.bouncycastle.pkcs.jcajce.JcaPKCS10CertificationRequestBuilder;

/**
 * Drives Bouncy Castle's EST client by one command a run; a device is a PKCS#12 file that holds its key and certificate.
 *
 * <p>Prints what came back as its first word: SUCCESS, PENDING with the seconds to wait, or FAILURE with status and text;
 * certificates go to the file `out`, PEM.
 */
public final class Driver {
    private static final char[] PASSWORD = "device".toCharArray();
    private static final String LABEL = System.getProperty("label");
    private static final String TLS = System.getProperty("tls", "TLSv1.3");
    private static final boolean SHOWS = Boolean.getBoolean("shows");
    private static final boolean BINDS = Boolean.getBoolean("binds");

    private final Path device;
    private final Path out;
    private final ESTService service;

    private Driver(String server, String folder, String root) throws Exception {
        device = Path.of(folder, "device.p12");
        out = Path.of(folder, "out");
        service = connect(server, root);
    }

    public static void main(String[] args) throws Exception {
        Security.addProvider(new BouncyCastleProvider());
        Driver driver = new Driver(args[1], args[2], args[3]);
        try {
            System.out.println(driver.run(args[0], Arrays.copyOfRange(args, 4, args.length)));
        } catch (ESTException refused) {
            InputStream body = refused.getBody();
            String text = body == null ? "" : new String(body.readAllBytes(), StandardCharsets.UTF_8);
            System.out.println("FAILURE " + refused.getStatusCode() + " " + (text.isEmpty() ? refused.getMessage() : text));
        }
    }

    /** Connect as the properties say: with a label, a TLS version, the device's certificate, a channel binding. */
    private ESTService connect(String server, String root) throws Exception {
        X509Certificate anchor;
        try (InputStream file = new FileInputStream(root)) {
            anchor = (X509Certificate) CertificateFactory.getInstance("X.509").generateCertificate(file);
        }
        Set<TrustAnchor> anchors = Set.of(new TrustAnchor(anchor, null));
        JsseESTServiceBuilder builder =
                new JsseESTServiceBuilder(server, JcaJceUtils.getCertPathTrustManager(anchors, null));
        builder.withTLSVersion(TLS).withTimeout(20_000);
        if (LABEL != null) {
            builder.withLabel(LABEL);
        }
        if (SHOWS) {
            KeyManagerFactory keys = KeyManagerFactory.getInstance(KeyManagerFactory.getDefaultAlgorithm());
            keys.init(load(), PASSWORD);
            builder.withKeyManagers(keys.getKeyManagers());
        }
        if (BINDS) {
            builder.withProvider(new BouncyCastleJsseProvider()).withChannelBindingProvider(new Binding());
        }
        return builder.build();
    }

    private String run(String command, String[] args) throws Exception {
        switch (command) {
            case "cacerts":
                return caCertificates();
            case "csrattrs":
                return attributes();
            case "enroll":
                return enroll(false, args[0], auth(args));
            case "renew":
                return enroll(true, args[0], auth(args));
            case "keygen":
                return generate(args[0], auth(args));
            default:
                throw new IllegalArgumentException(command);
        }
    }

    private String caCertificates() throws Exception {
        CACertsResponse answer = service.getCACerts();
        if (!answer.isTrusted()) {
            return "UNTRUSTED";
        }
        return save(ESTService.storeToArray(answer.getCertificateStore()));
    }

    private String attributes() throws Exception {
        StringBuilder found = new StringBuilder("SUCCESS");
        for (ASN1ObjectIdentifier oid : service.getCSRAttributes().getAttributesResponse().getRequirements()) {
            found.append(' ').append(oid.getId());
        }
        return found.toString();
    }

    private String enroll(boolean renews, String subject, ESTAuth auth) throws Exception {
        KeyPair pair = newPair();
        X500Principal name = new X500Principal(subject);
        JcaPKCS10CertificationRequestBuilder builder = new JcaPKCS10CertificationRequestBuilder(name, pair.getPublic());
        EnrollmentResponse answer =
                BINDS
                        ? service.simpleEnrollPoP(renews, builder, signer(pair.getPrivate()), auth)
                        : service.simpleEnroll(renews, builder.build(signer(pair.getPrivate())), auth);
        return finish(answer, pair.getPrivate());
    }

    /** Ask for a key; the request's own key is thrown away. */
    private String generate(String subject, ESTAuth auth) throws Exception {
        KeyPair pair = newPair();
        PKCS10CertificationRequest request =
                new JcaPKCS10CertificationRequestBuilder(new X500Principal(subject), pair.getPublic())
                        .build(signer(pair.getPrivate()));
        EnrollmentResponse answer = service.simpleEnrollWithServersideCreation(request, auth);
        byte[] key = answer.getPrivateKeyInfo().getEncoded();
        return finish(answer, KeyFactory.getInstance("EC").generatePrivate(new PKCS8EncodedKeySpec(key)));
    }

    private String finish(EnrollmentResponse answer, PrivateKey key) throws Exception {
        if (!answer.isCompleted()) {
            return "PENDING " + (answer.getNotBefore() - new Date().getTime() + 500) / 1000;
        }
        X509CertificateHolder[] found = ESTService.storeToArray(answer.getStore());
        store(key, new JcaX509CertificateConverter().getCertificate(found[0]));
        return save(found);
    }

    private ESTAuth auth(String[] args) throws Exception {
        return args.length < 3
                ? null
                : new JcaHttpAuthBuilder(null, args[1], args[2].toCharArray()).setProvider("BC").build();
    }

    private static KeyPair newPair() throws Exception {
        KeyPairGenerator generator = KeyPairGenerator.getInstance("EC");
        generator.initialize(256);
        return generator.generateKeyPair();
    }

    private static ContentSigner signer(PrivateKey key) throws Exception {
        return new JcaContentSignerBuilder("SHA256withECDSA").build(key);
    }

    private KeyStore load() throws Exception {
        KeyStore store = KeyStore.getInstance("PKCS12");
        try (InputStream file = new FileInputStream(device.toFile())) {
            store.load(file, PASSWORD);
        }
        return store;
    }

    private void store(PrivateKey key, X509Certificate certificate) throws Exception {
        KeyStore store = KeyStore.getInstance("PKCS12");
        store.load(null, null);
        store.setKeyEntry("device", key, PASSWORD, new Certificate[] {certificate});
        try (OutputStream file = new FileOutputStream(device.toFile())) {
            store.store(file, PASSWORD);
        }
    }

    private String save(X509CertificateHolder[] certificates) throws Exception {
        StringBuilder text = new StringBuilder();
        for (X509CertificateHolder certificate : certificates) {
            String encoded = Base64.getMimeEncoder().encodeToString(certificate.getEncoded());
            text.append("-----BEGIN CERTIFICATE-----\n").append(encoded).append("\n-----END CERTIFICATE-----\n");
        }
        Files.writeString(out, text);
        return "SUCCESS";
    }

    /** Takes tls-unique from Bouncy Castle's own TLS, since Java's gives none. */
    private static final class Binding implements ChannelBindingProvider {
        @Override
        public boolean canAccessChannelBinding(Socket socket) {
            return socket instanceof BCSSLSocket;
        }

        @Override
        public byte[] getChannelBinding(Socket socket, String name) {
            return ((BCSSLSocket) socket).getConnection().getChannelBinding(name);
        }
    }
}
